"""`unroll play RUN...` plays trained policies in the environment of their data, run beside run, as a table.

The returns reached stand against those asked for, or against the steps between key and door.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.arguments import Parser, non_negative_integer, positive_integer
from pipeline.errors import ConfigError, DataError
from pipeline.runs.record import read_record
from pipeline.runs.run import find_run

if TYPE_CHECKING:
    from pipeline.evaluation.plots.diagnosis import Points


class Setting(NamedTuple):
    """What is played."""

    asked: float | None
    """The return; None: what the run itself asks for."""
    delay: int | None
    """Steps between key and door; None: as in the data."""


def main(argv: list[str]) -> int:
    """Print a table.

    Raises:
        UserError: no such run or checkpoint, or a run whose data has no environment.
    """
    arguments = _parser().parse_args(argv)
    abouts = {name: about(name) for name in arguments.runs}
    _check(abouts, arguments)
    settings = [Setting(asked, delay) for asked in arguments.asked or [None] for delay in arguments.delay or [None]]
    cells = {name: list(reached(name, abouts[name], settings, arguments)) for name in arguments.runs}
    print("\n".join(rollouts_table(settings, cells, abouts[arguments.runs[0]])))
    if arguments.picture:
        _draw(settings, cells, arguments.picture)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="unroll play", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="runs of policies, of one environment")
    add("--return", nargs="+", type=float, dest="asked", metavar="R", help="ask for these (default: the run's own)")
    add(
        "--delay",
        nargs="+",
        type=positive_integer,
        metavar="D",
        help="of key to door: steps between them (default: as in the data)",
    )
    add("--episodes", type=positive_integer, default=100, metavar="N", help="of each (default: 100)")
    add("--seed", type=non_negative_integer, default=2, help="of the episodes; validation has 0, test 1 (default: 2)")
    add("--greedy", action="store_true", help="always the most probable action (default: actions are drawn)")
    add("--picture", type=Path, metavar="FILE.png", help="draw the returns against those asked for, or the delays")
    add("--checkpoint", default="best", metavar="best|last|PATH", help="which weights (default: best)")
    return parser


def about(name: str) -> dict[str, Any]:
    """What the data of a run says of its environment.

    Raises:
        DataError: it is no run of a policy, or its data comes from no known environment.
    """
    from pipeline.runs.load import skeleton

    if skeleton(run := find_run(name)).writes != "action":
        raise DataError(f"{name} was not trained on trajectories: `unroll play` wants a policy")
    found: dict[str, Any] = read_record(run)["dataset"]["trajectories"]
    if not found["environment"]:
        raise DataError(f"the data of {name} names no environment: prepare it with --environment ID")
    return found


def _check(abouts: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    names = {found["environment"]["name"] for found in abouts.values()}
    if len(names) > 1:
        raise ConfigError(f"these runs are of different environments: {', '.join(sorted(names))}")
    several = [len(given or ()) > 1 for given in (arguments.asked, arguments.delay)]
    if arguments.picture and several.count(True) != 1:
        raise ConfigError("--picture draws returns against one thing: give several --return, or several --delay")
    if arguments.delay and "delay" not in next(iter(abouts.values()))["environment"]["settings"]:
        raise ConfigError(f"--delay is of key to door, and this is {names.pop()}")


def reached(
    name: str, about: dict[str, Any], settings: Sequence[Setting], arguments: argparse.Namespace
) -> Iterator[tuple[float, float]]:
    """The mean return of a run for each setting, and the standard error of that mean."""
    from pipeline.dataset.environments import make
    from pipeline.generation.rollout import play_episodes
    from pipeline.runs.load import load_model

    policy = load_model(find_run(name), arguments.checkpoint)
    place = about["environment"]
    for asked, delay in settings:
        changed = {} if delay is None else {"delay": [delay, delay]}
        made = partial(make, place["name"], {**place["settings"], **changed})
        wanted = policy.target_return if asked is None else asked
        played = play_episodes(policy, made, range(arguments.episodes), wanted, arguments.seed, arguments.greedy)
        returns = np.array([one.reward for one in played])
        yield float(returns.mean()), float(returns.std() / np.sqrt(len(returns)))


def rollouts_table(
    settings: Sequence[Setting], cells: dict[str, list[tuple[float, float]]], about: dict[str, Any]
) -> list[str]:
    """Lines of a Markdown table: a row for each setting, a column for each run."""
    returns = about["returns"]
    heads = {"return asked for": settings[0].asked, "delay": settings[0].delay}
    names = [*(head for head, value in heads.items() if value is not None), *cells]
    lines = [
        f"mean returns and their standard errors; those of the training data: mean {returns['mean']:.4g}, "
        f"from {returns['worst']:.4g} to {returns['best']:.4g}",
        "",
        f"| {' | '.join(names)} |",
        "|---" * len(names) + "|",
    ]
    for row, setting in enumerate(settings):
        said = [f"{value:g}" for value in setting if value is not None]
        found = [f"{mean:.4g} ± {error:.2g}" for mean, error in (column[row] for column in cells.values())]
        lines.append(f"| {' | '.join([*said, *found])} |")
    return lines


def _draw(settings: Sequence[Setting], cells: dict[str, list[tuple[float, float]]], file: Path) -> None:
    """The mean returns as lines, a line a run."""
    from pipeline.evaluation.plots.diagnosis import chart
    from pipeline.evaluation.plots.figure import save

    place, under = (0, "return asked for") if settings[0].asked != settings[-1].asked else (1, "delay")
    lines: dict[str, Points] = {
        name: [(setting[place] or 0, mean) for setting, (mean, _) in zip(settings, column, strict=True)]
        for name, column in cells.items()
    }
    try:
        save(chart("mean return reached", under, lines), file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--picture {file} cannot be written ({error}): name a .png") from error
