"""Recipes of published results: configs/published/NAME.yaml.

title: JSB Chorales, LSTM                     # task and model
citation: "Bai, Kolter and Koltun 2018, table 1 (arXiv:1803.01271)"
metric: test/nats_per_frame                   # a value that `unroll test` prints; val/...: `unroll validate`
better: lower                                 # or higher
published: 8.45
band: [0, 8.70]                               # the result counts as reproduced inside of it
data: {music/JSB_Chorales.mat: 1f0c...}       # SHA-256 of each file; a name without .gz or .xz: of its unpacked content
source: https://...                           # where to get the files (optional)
prepare: music {data}/music/JSB_Chorales.mat  # arguments of `unroll prepare`, without --output
config: [configs/music/published/jsb_lstm.yaml]   # arguments --config of `unroll fit`
options: [--trainer.max_epochs, 5]            # further arguments of `unroll fit` (optional)
checkpoint: best                              # or last (optional)
points: {1000: 8.9}                           # expected validation figures by step (optional)
cost: 6                                       # expected core-minutes on a CPU, or gpu_minutes
note: The published figure ...                # in what the recipe differs (optional)

A recipe without `config` names its dataset and is the Kneser-Ney 5-gram that `unroll compare` adds as a baseline.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from pipeline.errors import ConfigError
from pipeline.training.shipped_configs import CONFIGS, located

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Recipe:
    """What is trained and tested, on which files, and what was published; see the module for the keys."""

    name: str
    title: str
    citation: str
    metric: str
    better: Literal["lower", "higher"]
    published: float
    band: tuple[float, float]
    data: dict[str, str]
    prepare: str
    source: str = ""
    config: list[str] = field(default_factory=list)
    options: list[str | int | float] = field(default_factory=list)
    dataset: str = ""
    checkpoint: Literal["best", "last"] = "best"
    points: dict[int, float] = field(default_factory=dict)
    cost: float | None = None
    gpu_minutes: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        low, high = self.band
        if not low < high:
            raise ConfigError(f"band={[low, high]}: expected a lower limit, then a higher one. Swap them")
        if wrong := [file for file, digest in self.data.items() if not SHA256.fullmatch(digest)]:
            raise ConfigError(f"data: {wrong[0]}: expected a SHA-256 of 64 hexadecimal digits. Use sha256sum")
        if (self.cost is None) == (self.gpu_minutes is None):
            raise ConfigError("cost, gpu_minutes: expected one of the two. Give the cost on a CPU or on a GPU")
        if bool(self.config) == bool(self.dataset):
            raise ConfigError(
                "config, dataset: expected one of the two. Only a recipe without config names its dataset"
            )

    @property
    def inputs(self) -> Path:
        """The directory of the dataset: that of the last config that names one."""
        if self.dataset:
            return Path(self.dataset)
        read = [yaml.safe_load(Path(located(name)).read_text(encoding="utf-8")) for name in self.config]
        named = [config["data"]["init_args"]["dataset"] for config in read if "data" in config]
        return Path(named[-1])

    @property
    def verb(self) -> str:
        """The command that measures the metric."""
        return "validate" if self.metric.startswith("val/") else "test"

    @property
    def validated(self) -> str:
        """The metric in a validation, as the journal names it."""
        return f"val/{self.metric.partition('/')[2]}"

    def run(self, seed: int) -> str:
        """Return the name of the run of a seed."""
        return f"published-{self.name.replace('_', '-')}-{seed}"

    def fit(self, seed: int) -> list[str]:
        """Return the command that trains with a seed."""
        configs = [word for name in self.config for word in ("--config", name)]
        return ["fit", *configs, *map(str, self.options), "--run", self.run(seed), "--seed_everything", str(seed)]

    def preparation(self, files: dict[str, Path]) -> list[str]:
        """Return the command that prepares the dataset from files, by their names in `data`."""
        command = self.prepare
        for name in sorted(files, key=len, reverse=True):  # a name can be the beginning of another one
            command = command.replace(f"{{data}}/{name}", shlex.quote(str(files[name])))
        return ["prepare", *shlex.split(command), "--output", str(self.inputs)]

    def contains(self, figure: float) -> bool:
        """Return whether a figure is inside the band."""
        return self.band[0] <= figure <= self.band[1]


def read_recipe(name: str, folder: Path = CONFIGS / "published") -> Recipe:
    """Read the recipe `name`.

    Raises:
        ConfigError: the recipe does not exist (the message lists those that do), or its file is invalid.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ConfigError(f"no recipe {name!r}: expected one of {known}. See `unroll reproduce --list`")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, skip={"name"})
    try:
        content = parser.parse_object(yaml.safe_load(file.read_text(encoding="utf-8")))
        return Recipe(name=name, **content.as_dict())
    except (ArgumentError, ConfigError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from error


def recipes(folder: Path = CONFIGS / "published") -> Iterator[Recipe]:
    """Return all recipes, by name.

    Raises:
        ConfigError: a file is invalid.
    """
    return (read_recipe(file.stem, folder) for file in sorted(folder.glob("*.yaml")))
