"""Prepare a dataset of episodes (observations, actions, rewards) from files or from an environment.

`unroll prepare trajectories SOURCE... --output data/NAME`. Episodes that are incomplete, contain NaN, have actions out
of range or fields of different lengths are counted and named in the dataset's report.

Legend: O numbers of an observation, A of an action.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from data_prep.trajectories.episodes import Bounds, InvalidEpisode, episode, read
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin
from data_prep.workspace.report import Report
from data_prep.workspace.splits import cut
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.trajectories import Episode, returns_to_go, write_episodes
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import gymnasium

PROGRAM = "unroll prepare trajectories"
BUILTIN, GYMNASIUM = "builtin:key-to-door", "gymnasium:"
EPISODES = 2000  # default number of episodes from an environment
LEAST = 1e-3  # standard deviation below which a number of an observation counts as constant
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
        f"files of episodes (.jsonl .parquet .npz), or an environment to play for N episodes: {BUILTIN}[:N] or "
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
        help="number of discrete actions (default: from the environment, else from the data)",
    )
    bounds = "range of continuous actions (default: from the environment, else from the data)"
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
        entries, returns = _prepare(place, report, played, options, argv)
    print("\n".join(report.lines()))
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
) -> tuple[dict[str, EpisodesEntry], dict[str, float]]:
    from data_prep.trajectories import controllers
    from pipeline.dataset.environments import make

    name, settings = (played.name, played.settings) if played else (options.environment, {})
    environment = make(name, settings) if name else None
    bounds = _bounds(options) if environment is None else Bounds.of_space(environment.action_space)
    found = controllers.play(*played, options.seed) if played else _read(options.sources, report)
    episodes = list(_fitting(found, bounds, report))
    report.check(options.max_bad_share)
    if not episodes:
        raise DataError(f"no episodes in {', '.join(options.sources)}. Check the sources")
    size = episodes[0].observations.shape[1]
    if environment is not None and (expected := _observation_size(environment.observation_space)) != size:
        raise DataError(
            f"--environment={name}: expected observations of {expected} numbers, got {size}. "
            "Name the environment in which the episodes were recorded"
        )
    splits = cut({"train": episodes}, shared.shares(options))
    for split, members in splits.items():
        if not members:
            raise DataError(f"the {split} split is empty. Prepare more episodes, or change the shares")
    entries = {split: _write(place.path, split, splits[split]) for split in SPLITS if split in splits}
    spaces, returns = _spaces(splits["train"], episodes, bounds)
    about = {"environment": {"name": name, "settings": settings} if name else None, "spaces": spaces}
    sources = options.sources if played else map(Path, options.sources)
    manifest = {
        "kind": "trajectories",
        "splits": entries,
        "trajectories": {**about, "returns": returns},
        **origin(PROGRAM, argv, sources, "gymnasium", "numpy", "pyarrow"),
    }
    place.publish(manifest, report.as_json(), options.overwrite)
    return entries, returns


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
    for source in sources:
        for name, fields in read(Path(source)):
            try:
                one = episode(name, fields)
            except InvalidEpisode as why:
                report.reject(name, str(why))
                continue
            if one is None:
                report.empty += 1
            else:
                yield one


def _fitting(found: Iterator[Episode], bounds: Bounds, report: Report) -> Iterator[Episode]:
    """Yield the episodes that fit the first one and the bounds; count and name the others in the report."""
    first: Episode | None = None
    for one in found:
        first = first or one
        try:
            fitted = bounds.fitted(one, first)
        except InvalidEpisode as why:
            report.reject(one.name, str(why))
            continue
        report.documents += 1
        yield fitted


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


def _write(folder: Path, split: str, episodes: list[Episode]) -> EpisodesEntry:
    shard = write_episodes(folder / f"{split}.arrow", episodes)
    actions = episodes[0].actions
    return {
        "episodes": len(episodes),
        "steps": sum(len(one.rewards) for one in episodes),
        "observation": episodes[0].observations.shape[1],
        "action": 0 if actions.ndim == 1 else actions.shape[1],
        "shards": [shard._asdict()],
    }


def _spaces(
    train: list[Episode], episodes: list[Episode], bounds: Bounds
) -> tuple[dict[str, object], dict[str, float]]:
    """Return the manifest's entries of the spaces that a policy needs, and of the returns in training."""
    observations = np.concatenate([one.observations for one in train])
    actions = np.concatenate([one.actions for one in episodes])
    deviation = observations.std(0, dtype=np.float64)
    spaces: dict[str, object] = {
        "observation_mean": observations.mean(0, dtype=np.float64).tolist(),
        "observation_deviation": np.where(deviation < LEAST, 1.0, deviation).tolist(),
        "choices": 0,
        "low": [],
        "high": [],
    }
    if actions.ndim == 1:
        spaces["choices"] = bounds.choices or int(actions.max()) + 1
    else:
        ends = (actions.min(0), actions.max(0)) if bounds.low is None else (bounds.low, bounds.high)
        low, high = (np.broadcast_to(np.array(end, np.float64), actions.shape[1]) for end in ends)
        spaces |= {"low": low.tolist(), "high": np.maximum(high, low + LEAST).tolist()}
    totals = np.array([returns_to_go(one.rewards)[0] for one in train], np.float64)
    returns = {"mean": float(totals.mean()), "worst": float(totals.min()), "best": float(totals.max())}
    return {**spaces, "best_return": returns["best"], "return_scale": float(np.abs(totals).max()) or 1.0}, returns


if __name__ == "__main__":
    shared.run_as_script(main)
