"""`unroll play RUN...`: roll out trained policies in the environment of their data and compare their returns.

The table shows the mean return by target return, or by the delay between key and door.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np

from pipeline.arguments import Parser, figure_file, non_negative_integer, positive_integer
from pipeline.errors import ConfigError, DataError
from pipeline.runs.record import read_record
from pipeline.runs.run import find_run

if TYPE_CHECKING:
    from pipeline.evaluation.plots.diagnosis import Points


class Setting(NamedTuple):
    """One row of the table."""

    target_return: float | None
    """None: the run's own."""
    delay: int | None
    """Steps between key and door; None: as in the data."""


class EnvironmentEntry(TypedDict):
    """An environment in run.json: its name in Gymnasium and its settings."""

    name: str
    settings: dict[str, object]


class TrajectoriesEntry(TypedDict):
    """The trajectories of a dataset in run.json, as far as they are used here."""

    environment: EnvironmentEntry
    returns: dict[str, float]


def main(argv: list[str]) -> int:
    """Print a table.

    Raises:
        UserError: a run or checkpoint does not exist, or the data of a run has no environment.
    """
    arguments = _parser().parse_args(argv)
    data = {name: read_trajectories_entry(name) for name in arguments.runs}
    _check(data, arguments)
    targets, delays = arguments.target_returns or [None], arguments.delay or [None]
    settings = [Setting(target, delay) for target in targets for delay in delays]
    cells = {name: list(mean_returns(name, data[name], settings, arguments)) for name in arguments.runs}
    print("\n".join(rollouts_table(settings, cells, data[arguments.runs[0]])))
    if arguments.picture:
        _draw(settings, cells, arguments.picture)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="unroll play", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="runs of policies in one environment")
    add(
        "--return",
        nargs="+",
        type=float,
        dest="target_returns",
        metavar="R",
        help="target returns (default: the run's own)",
    )
    add(
        "--delay",
        nargs="+",
        type=positive_integer,
        metavar="D",
        help="steps between key and door, for key-to-door only (default: as in the data)",
    )
    add("--episodes", type=positive_integer, default=100, metavar="N", help="episodes per row and run (default: 100)")
    add(
        "--seed",
        type=non_negative_integer,
        default=2,
        help="seed of the episodes; validation uses 0, test 1 (default: 2)",
    )
    add("--greedy", action="store_true", help="take the most probable action (default: sample actions)")
    add("--picture", type=figure_file, metavar="FILE.png", help="plot the mean returns by target return or by delay")
    add("--checkpoint", default="best", metavar="best|last|PATH", help="checkpoint to load (default: best)")
    return parser


def read_trajectories_entry(name: str) -> TrajectoriesEntry:
    """Read from a run's record how its data was made.

    Raises:
        DataError: the run is not a policy, or the environment of its data is unknown.
    """
    from pipeline.runs.load import skeleton

    if skeleton(run := find_run(name)).writes != "action":
        raise DataError(f"RUN={name}: expected a policy, got a model that was not trained on trajectories")
    found: TrajectoriesEntry = read_record(run)["dataset"]["trajectories"]
    if not found["environment"]:
        raise DataError(f"RUN={name}: its dataset has no environment. Prepare it with --environment ID")
    return found


def _check(data: dict[str, TrajectoriesEntry], arguments: argparse.Namespace) -> None:
    names = {found["environment"]["name"] for found in data.values()}
    if len(names) > 1:
        raise ConfigError(f"expected runs of one environment, got {', '.join(sorted(names))}")
    several = [len(given or ()) > 1 for given in (arguments.target_returns, arguments.delay)]
    if arguments.picture and several.count(True) != 1:
        raise ConfigError("--picture plots returns by one setting: give several --return, or several --delay")
    if arguments.delay and "delay" not in next(iter(data.values()))["environment"]["settings"]:
        raise ConfigError(f"--delay: expected runs in the key-to-door environment, got {names.pop()}. Omit --delay")


def mean_returns(
    name: str, data: TrajectoriesEntry, settings: Sequence[Setting], arguments: argparse.Namespace
) -> Iterator[tuple[float, float]]:
    """Yield the mean return of a run for each setting, and its standard error."""
    from pipeline.dataset.environments import make
    from pipeline.generation.rollout import play_episodes
    from pipeline.runs.load import load_model

    policy = load_model(find_run(name), arguments.checkpoint)
    environment = data["environment"]
    for target, delay in settings:
        changed = {} if delay is None else {"delay": [delay, delay]}
        made = partial(make, environment["name"], {**environment["settings"], **changed})
        target = policy.target_return if target is None else target
        played = play_episodes(policy, made, range(arguments.episodes), target, arguments.seed, arguments.greedy)
        returns = np.array([one.reward for one in played])
        yield float(returns.mean()), float(returns.std() / np.sqrt(len(returns)))


def rollouts_table(
    settings: Sequence[Setting], cells: dict[str, list[tuple[float, float]]], data: TrajectoriesEntry
) -> list[str]:
    """Return the lines of a Markdown table: a row per setting, a column per run."""
    returns = data["returns"]
    heads = {"target return": settings[0].target_return, "delay": settings[0].delay}
    names = [*(head for head, value in heads.items() if value is not None), *cells]
    lines = [
        f"mean return ± standard error; training data: mean {returns['mean']:.4g}, "
        f"range {returns['worst']:.4g} to {returns['best']:.4g}",
        "",
        f"| {' | '.join(names)} |",
        "|---" * len(names) + "|",
    ]
    for row, setting in enumerate(settings):
        named = [f"{value:g}" for value in setting if value is not None]
        found = [f"{mean:.4g} ± {error:.2g}" for mean, error in (column[row] for column in cells.values())]
        lines.append(f"| {' | '.join([*named, *found])} |")
    return lines


def _draw(settings: Sequence[Setting], cells: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """Plot the mean returns, one line per run."""
    from pipeline.evaluation.plots.diagnosis import chart
    from pipeline.evaluation.plots.figure import save

    axis, label = (0, "target return") if settings[0].target_return != settings[-1].target_return else (1, "delay")
    lines: dict[str, Points] = {
        name: [(setting[axis] or 0, mean) for setting, (mean, _) in zip(settings, column, strict=True)]
        for name, column in cells.items()
    }
    try:
        save(chart("mean return", label, lines), file)
    except OSError as error:
        raise ConfigError(f"--picture={file}: cannot be written ({error}). Give another file") from error
