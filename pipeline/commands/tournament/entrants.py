"""A tournament's file, and what each of its entrants is to be: how wide, at what cost, for how many steps.

entrants: {lstm: configs/text/lstm.yaml, transformer: [configs/text/transformer.yaml, OVERLAY.yaml]}
overlays: [configs/data/ptb.yaml, configs/run/cpu.yaml]     # after each entrant's own
settings: {trainer.val_check_interval: 100}                 # keys of the config, after all files
budget: {tokens: 1000000}                                   # or seconds: 60, or flops: 2.0e+12
parameters: 500000                                          # of each entrant, by its width; as configured without
tolerance: 0.02                                             # share that it may miss them by
seeds: [1, 2, 3]
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from pipeline.commands.plan import command as plan
from pipeline.commands.tournament import flops
from pipeline.commands.tournament.budgets import BUDGETS, TrainingCost, steps_within
from pipeline.commands.tournament.widths import nearest_width
from pipeline.data.batch_plan import MicroBatches
from pipeline.errors import ConfigError, UserError
from pipeline.runs.load import build_model, with_facts
from pipeline.training.config import parse_config
from pipeline.training.config_errors import read_mapping, readable_error, suggestion, wrapped_user_error

WIDTHS = "model.init_args.width", "model.init_args.network.init_args.width"  # of a flat config, and of its network's


@dataclass(frozen=True)
class Tournament:
    """What a tournament's file says.

    Args:
        name: of the file.
        entrants: the config files of each, by its name.
        budget: what each may cost: one of tokens, seconds and flops.
        overlays: config files that come after those of each entrant.
        settings: keys of the config and their values, after all files.
        parameters: that each is to have; None for those that its config gives it.
        tolerance: share that it may miss them by.
        seeds: a run for each.
    """

    name: str
    entrants: dict[str, list[str]]
    budget: dict[str, float]
    overlays: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    tolerance: float = 0.02
    seeds: list[int] = field(default_factory=lambda: [1])


class Entrant(NamedTuple):
    """One architecture as it enters."""

    name: str
    arguments: list[str]
    """Of `unroll fit`, without run and seed; the first one a config."""
    width: int | None
    parameters: int
    flops_per_token: float
    steps: int | None
    """None where the clock decides."""
    dataset: Path


def read_tournament(path: Path) -> Tournament:
    """The tournament in a file.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown or missing, or a value cannot be.
    """
    given = read_mapping(path, expected="a tournament, such as those of configs/tournament/")
    known = [each.name for each in fields(Tournament) if each.name != "name"]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"{path}: a tournament has no key {key!r}{suggestion(str(key), known) or f'; it has {known}'}"
            )
    if missing := [key for key in ("entrants", "budget") if not given.get(key)]:
        raise ConfigError(f"{path} names no {missing[0]}: see configs/tournament/")
    for key, (fits, wanted) in FORMS.items():
        if key in given and not fits(given[key]):
            raise ConfigError(f"{path}: {key} must be {wanted}, not {given[key]!r}")
    files = {str(name): [value] if isinstance(value, str) else value for name, value in given["entrants"].items()}
    return Tournament(path.stem, **{**given, "entrants": files})


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _are_entrants(value: Any) -> bool:
    named = isinstance(value, dict) and all(Path(str(name)).name == str(name) for name in value)
    return named and all(isinstance(each, str) or (each and _is_list_of(str, each)) for each in value.values())


def _is_budget(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) != 1:
        return False
    [(unit, amount)] = value.items()
    whole = isinstance(amount, int) if unit == "seconds" else isinstance(amount, int | float)
    return unit in BUDGETS and whole and not isinstance(amount, bool) and 0 < amount < math.inf


FORMS = {
    "entrants": (_are_entrants, "names, each with a config file or a list of them"),
    "budget": (_is_budget, "one of {tokens: N}, {seconds: N} and {flops: N}"),
    "overlays": (lambda value: _is_list_of(str, value), "a list of config files"),
    "settings": (lambda value: isinstance(value, dict), "keys of the config with values"),
    "parameters": (lambda value: isinstance(value, int) and value > 0, "a number above 0"),
    "tolerance": (lambda value: isinstance(value, float) and 0 < value < 1, "a share between 0 and 1"),
    "seeds": (
        lambda value: bool(value) and _is_list_of(int, value) and len(set(value)) == len(value),
        "a list of different whole numbers",
    ),
}


def entrants_of(tournament: Tournament) -> list[Entrant]:
    """Every entrant, once its config is known to be possible.

    Raises:
        ConfigError: a config cannot be, two read different datasets, or no width has the parameters that are wanted.
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
        raise ConfigError(f"{tournament.name}: all must read one dataset, but {named}: name it in an overlay")
    return found


def _entrant(tournament: Tournament, name: str, configs: list[str]) -> Entrant:
    first, *others = [*configs, *tournament.overlays]
    files = [first, *(word for other in others for word in ("--config", other))]
    settings = dict(tournament.settings)
    cli = parse_config(["--config", *files, *words(settings)])
    data: Any = cli.build()[1]
    model = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))["model"]
    key = next((key for key in WIDTHS if cli.config.get(key) is not None), None)
    if tournament.parameters is not None:
        if key is None:
            raise ConfigError(f"parameters are matched by {' or '.join(WIDTHS)}, which its config does not name")
        settings[key] = _width(tournament, key, with_facts(model, data.facts))
    cli = parse_config(["--config", *files, *words(settings)])
    cost = _cost(cli, data)
    [(unit, amount)] = tournament.budget.items()
    settings |= BUDGETS[unit](amount, cost)
    task = cli.build()[0]
    return Entrant(
        name,
        [*files, *words(settings)],
        cli.config[key] if key else None,
        sum(parameter.numel() for parameter in task.parameters()),
        cost.flops_per_token,
        max(settings["trainer.max_steps"], 0) or None,
        data.dataset.path,
    )


def words(settings: Mapping[str, Any]) -> list[str]:
    """Keys and values as the command line takes them."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [word for key, text in texts.items() for word in (f"--{key}", text)]


def _width(tournament: Tournament, key: str, model: dict[str, Any]) -> int:
    """The width that has the wanted number of parameters.

    Args:
        tournament: says how many are wanted.
        key: of the width, in the whole config.
        model: class and arguments.

    Raises:
        ConfigError: no width comes near enough.
    """
    wanted = tournament.parameters or 0

    @cache
    def count(width: int) -> int:
        try:
            with torch.device("meta"):
                built = build_model(_with(model, key.split(".")[1:], width))
        except Exception as error:  # what a constructor raised, and what jsonargparse makes of it
            raise wrapped_user_error(error) or ConfigError(readable_error(str(error))) from error
        return sum(parameter.numel() for parameter in built.parameters())

    width = nearest_width(wanted, count)
    if abs(count(width) - wanted) > tournament.tolerance * wanted:
        raise ConfigError(
            f"no width comes within {tournament.tolerance:.1%} of {wanted:,} parameters, the nearest is {width} with "
            f"{count(width):,}: raise tolerance, or aim at that"
        )
    return width


def _with(config: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """The config with another value at a nested key."""
    first, *rest = keys
    return {**config, first: _with(config[first], rest, value) if rest else value}


def _cost(cli: Any, data: Any) -> TrainingCost:
    samples = data.samples("train")
    order = data.plan(samples)
    part = next(iter(MicroBatches(order, data.divide(1, 0), samples.predictions)))
    counted = flops.flops_of(lambda: plan.make_task(cli), samples.__getitems__(part))

    def steps(tokens: float) -> int:
        return steps_within(tokens, len(order), lambda epoch, k: samples.predictions(order.batch(epoch, k)))

    return TrainingCost(counted / samples.predictions(part.ids), steps)
