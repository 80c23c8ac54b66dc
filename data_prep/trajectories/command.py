"""Prepare a dataset of episodes (observations, actions, rewards) from files or from an environment.

`unroll prepare trajectories SOURCE... --output data/NAME`. Episodes that are incomplete, contain NaN, have actions out
of range or fields of different lengths are counted and named in the dataset's report. Copies of an episode in files
are counted too, and are in one split.

Legend: O numbers of an observation, A of an action.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from data_prep.trajectories.actions import Bounds, described, numbers
from data_prep.trajectories.episodes import episodes
from data_prep.trajectories.files import read
from data_prep.trajectories.fitting import content, fitting_episodes
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin
from data_prep.workspace.report import Report
from data_prep.workspace.splits import by_identity, by_name, cut
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.trajectories import Episode, is_constant, returns_to_go, write_episodes
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import gymnasium

PROGRAM = "unroll prepare trajectories"
BUILTIN, GYMNASIUM = "builtin:key-to-door", "gymnasium:"
EPISODES = 2000  # default number of episodes from an environment
EXAMPLES = """examples:
  unroll prepare trajectories builtin:key-to-door:4000 --delay 2 60 --output data/key-to-door
  unroll prepare trajectories gymnasium:CartPole-v1:1000 --output data/cartpole
  unroll prepare trajectories mine.npz --environment Acrobot-v1 --output data/acrobot"""


class Played(NamedTuple):
    """The environment to play."""

    name: str
    settings: dict[str, Any]
    """Arguments of its constructor."""
    episodes: int
    """Number of episodes."""


class EpisodesEntry(TypedDict):
    """The manifest's entry of a split of episodes."""

    episodes: int
    steps: int
    observation: int
    action: int
    shards: list[dict[str, object]]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    sources = (
        f"files of episodes (JSON lines, Parquet or .npz), or an environment to play for N episodes: {BUILTIN}[:N] or "
        f"{GYMNASIUM}ENVIRONMENT[:N] (default: {EPISODES})"
    )
    add("sources", nargs="+", metavar="SOURCE", help=sources)
    shared.add_output(parser)
    shared.add_shares(parser, 0.1, "episodes")
    shared.add_max_bad_share(parser, "episodes")
    add = parser.add_argument_group("files").add_argument
    add("--environment", metavar="ID", help="Gymnasium environment of the episodes, for the evaluation of policies")
    add(
        "--choices",
        type=positive_integer,
        metavar="N",
        help="actions are choices among N (default: from the environment, else from the data)",
    )
    bounds = "actions are numbers in this range (default: from the environment, else from the data)"
    add("--action-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=bounds)
    played = parser.add_argument_group("environments")
    add = played.add_argument
    delay = "key-to-door: minimum and maximum number of steps from key to door (default: 2 30)"
    add("--delay", nargs=2, type=positive_integer, default=[2, 30], metavar=("MIN", "MAX"), help=delay)
    keys = "key-to-door: number of key colours, of which one is correct (default: %(default)s)"
    add("--keys", type=positive_integer, default=4, metavar="K", help=keys)
    shared.add_seed(played, 0, "the episodes")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of trajectories from the command line.

    Raises:
        ConfigError: the options contradict each other, or the environment does not exist.
        DataError: a source cannot be used, or too many episodes are invalid.
    """
    options = _parser().parse_args(argv)
    began = time.monotonic()
    report = Report("episodes")
    played = _played(options)
    place = shared.workplace(options)
    with place.entered(fresh=True):  # Episodes are read again after an interruption.
        entries, returns, kinds = _prepare(place, report, played, options, argv)
    print("\n".join(report.lines()))
    print(kinds)
    for name, entry in entries.items():
        print(f"{name}: {entry['episodes']:,} episodes, {entry['steps']:,} steps")
    print(f"returns of training: mean {returns['mean']:.4g}, from {returns['worst']:.4g} to {returns['best']:.4g}")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _played(options: argparse.Namespace) -> Played | None:
    """Return the environment to play, None if the sources are files."""
    from data_prep.trajectories.controllers import SCRIPTED
    from pipeline.dataset.environments import KEY_TO_DOOR

    shared.check(options)
    if options.delay[0] > options.delay[1]:
        raise ConfigError(f"--delay {options.delay[0]} {options.delay[1]}: the minimum must come first")
    environments = [each for each in options.sources if each.startswith((BUILTIN.split(":")[0] + ":", GYMNASIUM))]
    if not environments:
        return None
    source = environments[0]
    if given := [name for name in ("environment", "choices", "action_range") if getattr(options, name)]:
        raise ConfigError(f"--{given[0].replace('_', '-')} is for files, but the source is {source}. Omit the option")
    if len(options.sources) > 1:
        raise ConfigError(
            f"{source} must be the only source, got {len(options.sources)}. Prepare the others separately"
        )
    kind, name, number = [*source.split(":"), ""][:3]
    if not (number or str(EPISODES)).isdigit() or number == "0":
        raise ConfigError(f"{source}: expected a number of episodes after the second colon, got {number}")
    known = {KEY_TO_DOOR: f"{kind}:{name}" == BUILTIN, name: kind == GYMNASIUM[:-1] and name in SCRIPTED}
    if not any(known.values()):
        supported = ", ".join([BUILTIN, *(GYMNASIUM + each for each in SCRIPTED)])
        raise ConfigError(f"{source}: no controller for this environment. Choose {supported}, or files of episodes")
    settings = {"keys": options.keys, "delay": options.delay} if known[KEY_TO_DOOR] else {}
    return Played(KEY_TO_DOOR if known[KEY_TO_DOOR] else name, settings, int(number or EPISODES))


def _prepare(
    place: Workplace,
    report: Report,
    played: Played | None,
    options: argparse.Namespace,
    argv: Sequence[str],
) -> tuple[dict[str, EpisodesEntry], dict[str, float], str]:
    """Write the dataset; return the entries of its splits, the returns of training, and a line on the spaces."""
    from data_prep.trajectories import controllers
    from pipeline.dataset.environments import make

    name, settings = (played.name, played.settings) if played else (options.environment, {})
    environment = make(name, settings) if name else None
    bounds = _bounds(options) if environment is None else Bounds.of_space(environment.action_space)
    found = controllers.play(*played, options.seed) if played else _read(options.sources, report)
    fitting = fitting_episodes(list(found), bounds, report)
    report.check(options.max_bad_share)
    if not fitting:
        raise DataError(f"no episodes in {', '.join(options.sources)}. Check the sources")
    size = fitting[0].observations.shape[1]
    if environment is not None and (expected := _observation_size(environment.observation_space)) != size:
        raise DataError(
            f"--environment={name}: expected observations of {expected} numbers, got {size}. "
            "Name the environment in which the episodes were recorded"
        )
    divide = by_name if played else partial(by_identity, report, content)
    splits = cut({"train": fitting}, shared.shares(options), divide)
    for split, members in splits.items():
        if not members:
            raise DataError(f"the {split} split is empty. Prepare more episodes, or change the shares")
    entries = {split: _write(place.path, split, splits[split]) for split in SPLITS if split in splits}
    returns = _returns(splits["train"])
    actions = bounds.spaces(fitting)
    _note_constant(splits["train"], report)
    scale = max(abs(returns["best"]), abs(returns["worst"])) or 1.0
    spaces = {**_scales(splits["train"], report), **actions, "best_return": returns["best"], "return_scale": scale}
    about = {"environment": {"name": name, "settings": settings} if name else None, "spaces": spaces}
    sources = options.sources if played else map(Path, options.sources)
    manifest = {
        "kind": "trajectories",
        "splits": entries,
        "trajectories": {**about, "returns": returns},
        **origin(PROGRAM, argv, sources, "gymnasium", "numpy", "pyarrow"),
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return entries, returns, f"actions: {described(actions, fitting)}; observations: {numbers(size)}"


def _bounds(options: argparse.Namespace) -> Bounds:
    if options.choices and options.action_range:
        raise ConfigError("--choices is for discrete and --action-range for continuous actions. Give one of them")
    if options.action_range and not -math.inf < options.action_range[0] <= options.action_range[1] < math.inf:
        low, high = options.action_range
        raise ConfigError(f"--action-range {low:g} {high:g}: expected two finite numbers, the minimum first")
    low, high = (np.array(end) for end in options.action_range) if options.action_range else (None, None)
    return Bounds(options.choices, low, high)


def _read(sources: Sequence[str], report: Report) -> Iterator[Episode]:
    """Yield the valid episodes of files; count and name the others in the report."""
    names = set[str]()
    for source in sources:
        for name, fields in read(Path(source), report):
            for one in episodes(name, fields, report):
                if one.name in names:
                    report.note(one.name, "name or id of an earlier episode")
                names.add(one.name)
                yield one


def _observation_size(space: "gymnasium.Space[Any]") -> int:
    """Return the number of values in an observation.

    Raises:
        ConfigError: observations are not arrays of numbers.
    """
    if space.shape is None:
        raise ConfigError(
            f"observation space {space} is not supported: expected an array of numbers. Choose another environment"
        )
    return int(np.prod(space.shape))


def _write(folder: Path, split: str, members: list[Episode]) -> EpisodesEntry:
    shard = write_episodes(folder / f"{split}.arrow", members)
    actions = members[0].actions
    return {
        "episodes": len(members),
        "steps": sum(len(one.rewards) for one in members),
        "observation": members[0].observations.shape[1],
        "action": 0 if actions.ndim == 1 else actions.shape[1],
        "shards": [shard._asdict()],
    }


def _scales(train: list[Episode], report: Report) -> dict[str, object]:
    """Return mean and deviation of each number of an observation; a constant one has deviation 1 and is noted."""
    observations = np.concatenate([one.observations for one in train])
    columns = np.ascontiguousarray(observations.T)
    ends = columns.min(1).astype(np.float64), columns.max(1).astype(np.float64)
    constant = is_constant(*ends, observations.dtype)
    for column in np.flatnonzero(constant):
        report.note(f"number {column + 1} of {len(constant)}", "observation that is constant in training")
    deviation = np.where(constant, 1.0, observations.std(0, dtype=np.float64))
    return {
        "observation_mean": observations.mean(0, dtype=np.float64).tolist(),
        "observation_deviation": deviation.tolist(),
    }


def _note_constant(train: list[Episode], report: Report) -> None:
    """Count the numbers of an action that are constant in the precision in which they are stored."""
    actions = np.concatenate([one.actions for one in train])
    if actions.ndim > 1:
        for column in np.flatnonzero(is_constant(actions.min(0), actions.max(0), actions.dtype)):
            report.note(f"number {column + 1} of {actions.shape[1]}", "action that is constant in training")


def _returns(train: list[Episode]) -> dict[str, float]:
    totals = np.array([returns_to_go(one.rewards)[0] for one in train], np.float64)
    return {"mean": float(totals.mean()), "worst": float(totals.min()), "best": float(totals.max())}


if __name__ == "__main__":
    shared.run_as_script(main)
