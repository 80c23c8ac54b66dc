"""Read the file of a tournament and determine width, cost and number of steps of each entrant.

entrants: {lstm: configs/text/lstm.yaml, transformer: [configs/text/transformer.yaml, OVERLAY.yaml]}
overlays: [configs/data/ptb.yaml, configs/run/cpu.yaml]     # after each entrant's own files
settings: {trainer.val_check_interval: 100}                 # keys of the config, after all files
budget: {tokens: 1000000}                                   # or seconds: 60, or flops: 2.0e+12
parameters: 500000                                          # per entrant, by its width (default: as configured)
tolerance: 0.02                                             # maximum relative deviation from `parameters`
seeds: [1, 2, 3]
tune:                                                       # before the runs: best values of each entrant
  over: {model.init_args.optimizer.init_args.lr: "log:1e-4:1e-2:8"}
  budget: {tokens: 4000000}                                 # per entrant, for all of its trials together
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
import yaml

from pipeline.commands.budgets import BUDGETS, TrainingCost, cost_of, words
from pipeline.commands.tournament.widths import nearest_width
from pipeline.commands.tune.values import Value
from pipeline.errors import ConfigError, UserError
from pipeline.runs.load import build_model, with_facts
from pipeline.training.config import parse_config
from pipeline.training.config_errors import read_mapping, readable_error, suggestion, wrapped_user_error

WIDTHS = "model.init_args.width", "model.init_args.network.init_args.width"  # in flat configs, and in nested ones


class EntrantTuning(TypedDict):
    """How each entrant is tuned."""

    over: dict[str, str | list[Value]]
    """Values by key of the config."""
    budget: dict[str, float]


@dataclass(frozen=True)
class Tournament:
    """The content of a tournament's file.

    Args:
        name: name of the file.
        entrants: config files of each entrant, by its name.
        budget: budget per run, in one of tokens, seconds and flops.
        overlays: config files after those of each entrant.
        settings: keys of the config and their values, after all files.
        parameters: number of parameters of each entrant; None for that of its config.
        tolerance: maximum relative deviation from `parameters`.
        seeds: one run per seed.
        tune: keys with their values, and the budget of the trials of an entrant; None for no tuning.
    """

    name: str
    entrants: dict[str, list[str]]
    budget: dict[str, float]
    overlays: list[str] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)
    parameters: int | None = None
    tolerance: float = 0.02
    seeds: list[int] = field(default_factory=lambda: [1])
    tune: EntrantTuning | None = None


class Entrant(NamedTuple):
    """One architecture in a tournament."""

    name: str
    arguments: list[str]
    """Arguments of `unroll fit` without run and seed; the first one a config."""
    width: int | None
    parameters: int
    cost: TrainingCost
    steps: int | None
    """None for a budget in seconds."""
    dataset: Path

    @property
    def flops_per_token(self) -> float:
        """Return the floating-point operations of a training step per token."""
        return self.cost.flops_per_token


def read_tournament(path: Path) -> Tournament:
    """Read the file of a tournament.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is invalid.
    """
    given = read_mapping(path, expected="a tournament, such as those of configs/tournament/")
    known = [each.name for each in fields(Tournament) if each.name != "name"]
    for key in given:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{suggestion(str(key), known) or f'; choose from {known}'}")
    if missing := [key for key in ("entrants", "budget") if not given.get(key)]:
        raise ConfigError(f"{path}: {missing[0]} is required. See the examples in configs/tournament/")
    for key, (fits, expected) in FORMS.items():
        if key in given and not fits(given[key]):
            raise ConfigError(f"{path}: {key}: expected {expected}, got {given[key]!r}")
    files = {str(name): [value] if isinstance(value, str) else value for name, value in given["entrants"].items()}
    return Tournament(path.stem, **{**given, "entrants": files})


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _are_entrants(value: object) -> bool:
    if not isinstance(value, dict) or any(Path(str(name)).name != str(name) for name in value):
        return False
    return all(isinstance(each, str) or (each and _is_list_of(str, each)) for each in value.values())


def _is_budget(value: object) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    [(unit, amount)] = value.items()
    whole = isinstance(amount, int) if unit == "seconds" else isinstance(amount, int | float)
    return unit in BUDGETS and whole and not isinstance(amount, bool) and 0 < amount < math.inf


def _is_tuning(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {"over", "budget"} or not isinstance(value["over"], dict):
        return False
    return bool(value["over"]) and _is_budget(value["budget"]) and "seconds" not in value["budget"]


FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "entrants": (_are_entrants, "names, each with a config file or a list of config files"),
    "budget": (_is_budget, "one of {tokens: N}, {steps: N}, {seconds: N} and {flops: N}"),
    "overlays": (lambda value: _is_list_of(str, value), "a list of config files"),
    "settings": (lambda value: isinstance(value, dict), "a mapping from keys of the config to values"),
    "parameters": (lambda value: isinstance(value, int) and value > 0, "an integer above 0"),
    "tolerance": (lambda value: isinstance(value, float) and 0 < value < 1, "a number between 0 and 1"),
    "seeds": (
        lambda value: bool(value) and _is_list_of(int, value) and len(set(value)) == len(value),
        "a list of distinct integers",
    ),
    "tune": (_is_tuning, "over: {KEY: VALUES} and budget: {tokens: N}, {steps: N} or {flops: N}"),
}


def entrants_of(tournament: Tournament) -> list[Entrant]:
    """Return all entrants, after a check of their configs.

    Raises:
        ConfigError: a config is invalid, datasets differ, or no width has the required number of parameters.
        DataError: the dataset is missing or damaged.
    """
    found = []
    for name, configs in tournament.entrants.items():
        try:
            found.append(_entrant(tournament, name, configs))
        except UserError as error:
            raise type(error)(f"{tournament.name}, entrant {name}: {error}") from error
    if len({entrant.dataset.resolve() for entrant in found}) > 1:
        named = ", ".join(f"{entrant.name} {entrant.dataset}" for entrant in found)
        raise ConfigError(
            f"{tournament.name}: expected one dataset for all entrants, got {named}. Set it in an overlay"
        )
    return found


def _entrant(tournament: Tournament, name: str, configs: list[str]) -> Entrant:
    first, *others = [*configs, *tournament.overlays]
    files = [first, *(word for other in others for word in ("--config", other))]
    settings = dict(tournament.settings)
    cli = parse_config(["--config", *files, *words(settings)])
    data = cli.build()[1]
    model = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))["model"]
    key = next((key for key in WIDTHS if cli.config.get(key) is not None), None)
    if tournament.parameters is not None:
        if key is None:
            raise ConfigError(f"parameters: the config has neither {' nor '.join(WIDTHS)} to adapt. Omit parameters")
        settings[key] = _width(tournament, key, with_facts(model, data.facts))
    cli = parse_config(["--config", *files, *words(settings)])
    cost = cost_of(cli, data)
    [(unit, amount)] = tournament.budget.items()
    settings |= BUDGETS[unit](amount, cost)
    steps = settings["trainer.max_steps"]
    assert isinstance(steps, int)
    task = cli.build()[0]
    return Entrant(
        name,
        [*files, *words(settings)],
        cli.config[key] if key else None,
        sum(parameter.numel() for parameter in task.parameters()),
        cost,
        max(steps, 0) or None,
        data.dataset.path,
    )


def _width(tournament: Tournament, key: str, model: dict[str, Any]) -> int:
    """Return the width with the required number of parameters.

    Args:
        tournament: the tournament.
        key: key of the width in the whole config.
        model: class and arguments of the model.

    Raises:
        ConfigError: no width is within the tolerance.
    """
    target = tournament.parameters or 0

    @cache
    def count(width: int) -> int:
        try:
            with torch.device("meta"):
                built = build_model(_with(model, key.split(".")[1:], width))
        except Exception as error:  # errors of constructors, wrapped by jsonargparse
            raise wrapped_user_error(error) or ConfigError(readable_error(str(error))) from error
        return sum(parameter.numel() for parameter in built.parameters())

    width = nearest_width(target, count)
    if abs(count(width) - target) > tournament.tolerance * target:
        raise ConfigError(
            f"parameters={target}: no width is within {tournament.tolerance:.1%}; width {width} has {count(width):,}. "
            "Increase tolerance, or use that number"
        )
    return width


def _with(config: dict[str, Any], keys: list[str], value: object) -> dict[str, Any]:
    """Return the config with another value at a nested key."""
    first, *rest = keys
    return {**config, first: _with(config[first], rest, value) if rest else value}
