"""Files of a run, their layout, and the losses of its first steps are unchanged between versions."""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from pipeline.cli import main
from pipeline.runs.moved import new_path
from tests.golden import recorded
from tests.golden.recorded import Golden

CONFIGS = Path(__file__).parents[2] / "configs"
STRATEGIES = {
    "one process": ["--trainer.devices=1"],
    "two processes": ["--trainer.devices=2", "--trainer.strategy=ddp"],
    "sharded": [
        "--trainer.devices=2",
        '--trainer.strategy={"class_path": "pipeline.distributed.strategies.FullySharded"}',
    ],
}
OURS = (
    "callbacks",
    "schedule",
    "seen",
    "carried",
    "aliases",
    "accumulation",
    "averaged",
)  # without those of Lightning and torch
OPTIONS = ("params", "lr", "weight_decay", "betas", "eps")


def forked(work: Callable[[], int]) -> int:
    """Run `work` in a forked process and return its exit code."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module", params=STRATEGIES)
def run(request: pytest.FixtureRequest, tiny_text_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A strategy and a run of six steps under it, without dropout, whose random numbers depend on the processor."""
    home, average = tmp_path_factory.mktemp("golden"), "pipeline.callbacks.averaging.ExponentialAverage"
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01, "weight_decay": 0.1}}
    schedule = {"class_path": "pipeline.optim.Plateau"}
    options = {"width": 8, "depth": 2, "dropout": 0.0, "optimizer": optimizer, "schedule": schedule}
    cut = {"dataset": str(tiny_text_dataset), "order": "contiguous", "context": 16, "global_batch_size": 8}
    config = {
        "model": {"class_path": "pipeline.models.lstm.LSTMLanguageModel", "init_args": options},
        "data": {"class_path": "pipeline.data.text.TextDataModule", "init_args": cut},
        "trainer": {"accelerator": "cpu", "max_steps": 6, "log_every_n_steps": 1, "limit_val_batches": 2},
    }
    if request.param != "sharded":  # With sharded weights, no process has the averaged weights.
        config["trainer"]["callbacks"] = [{"class_path": average}]
    (home / "config.yaml").write_text(yaml.safe_dump(config))

    def fit() -> int:
        os.chdir(home)
        os.environ |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        torch.set_num_threads(1)
        return main(["fit", "--config", "config.yaml", "--run", "a", *STRATEGIES[request.param]])

    assert forked(fit) == 0
    return request.param, home / "runs" / "a"


def layout(value: object) -> object:
    """Return the contents of a tree by name: shape and type of tensors, type of other values."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, Mapping):
        return {str(key): layout(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [layout(part) for part in value]
    return type(value).__name__


@pytest.mark.slow
@pytest.mark.numeric
def test_the_files_of_a_run_are_unchanged(golden: Golden, run: tuple[str, Path]) -> None:
    strategy, path = run
    [checkpoint] = path.glob("checkpoints/step-*")
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    files = [file for file in files if not file.endswith(".patch")]  # of a checkout with changes
    record = json.loads((path / "run.json").read_text())
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    tensors = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            places = json.loads(opened.metadata()["places"])
            kinds = {name: str(opened.get_tensor(name).dtype) for name in opened.keys()}  # noqa: SIM118
            tensors[file.name] = {name: [kinds[name], *place] for name, place in sorted(places.items())}
    optimizer = state["optimizer"]
    found = {
        "files": files,
        "run.json": sorted(record),
        "run.json, attempts": sorted(record["attempts"][0]),
        "manifest.json": {key: manifest[key] for key in ("step", "strategy", "world_size")},
        "manifest.json, keys": sorted(manifest),
        "manifest.json, files": {name: sorted(about) for name, about in sorted(manifest["files"].items())},
        "state.pt": sorted(state),
        **{f"state.pt, {name}": layout(state[name]) for name in OURS if name in state},
        "state.pt, optimizer": {name: layout(part) for name, part in optimizer.items() if name != "groups"},
        **{f"group {n}": {key: each[key] for key in OPTIONS} for n, each in enumerate(optimizer["groups"])},
        **tensors,
    }
    golden("checkpoints", strategy, found, within=1e-6)


@pytest.mark.slow
@pytest.mark.numeric
def test_the_losses_of_first_steps_are_unchanged(golden: Golden, run: tuple[str, Path]) -> None:
    """With the same plan, weights and optimizer, the order of sums changes a loss by less than 1e-4 in six steps."""
    strategy, path = run
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "train/loss" in line or "val/loss" in line]
    measured = ("train/loss", "train/gradient_norm", "train/learning_rate", "val/loss")
    found = {
        f"row {n}": {key: row[key] for key in ("step", "tokens", *measured) if key in row} for n, row in enumerate(rows)
    }
    golden("losses", strategy, found, within=1e-4)


def class_paths(config: object) -> set[str]:
    """Return the classes of this project that are named anywhere in a config."""
    if isinstance(config, str):
        return {config} if re.fullmatch(r"pipeline(\.\w+)+", config) else set()
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else []
    return set[str]().union(*map(class_paths, parts))


def test_classes_named_by_configs_of_earlier_runs_are_found(golden: Golden, request: pytest.FixtureRequest) -> None:
    """A run's config.yaml names classes by their modules, which therefore are part of the format on disk."""
    kept = recorded.read("class_paths").get("configs", [])
    if "class_paths" in request.config.getoption("regenerate", default=[]):
        configs = [yaml.safe_load(path.read_text()) for path in CONFIGS.rglob("*.yaml")]
        golden("class_paths", "configs", sorted({*kept} | class_paths(configs)))
    assert [path for path in kept if not callable(locate(new_path(path) or path))] == []
