"""Episodes of observations, actions and rewards become a dataset: of files, or played on the spot.

`unroll prepare trajectories SOURCE... --output data/NAME`. What ends early,
holds NaN, acts outside the range or has fields of different lengths is counted and named in the dataset's report.

Legend: O numbers of an observation, A of an action.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.trajectories.episodes import Bounds, Unfit, episode, read
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin
from data_prep.workspace.report import Report
from data_prep.workspace.splits import cut
from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import Parser, positive_integer
from pipeline.dataset.trajectories import Episode, returns_to_go, write_episodes
from pipeline.errors import ConfigError, DataError

PROGRAM = "unroll prepare trajectories"
BUILTIN, GYMNASIUM = "builtin:key-to-door", "gymnasium:"
EPISODES = 2000  # of an environment, where the command does not say
LEAST = 1e-3  # deviation below which a number of an observation counts as constant
EXAMPLES = """examples:
  unroll prepare trajectories builtin:key-to-door:4000 --delay 2 60 --output data/key-to-door
  unroll prepare trajectories gymnasium:CartPole-v1:1000 --output data/cartpole
  unroll prepare trajectories mine.npz --environment Acrobot-v1 --output data/acrobot"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    sources = f"files (.jsonl .parquet .npz), or {BUILTIN}[:N], or {GYMNASIUM}ENVIRONMENT[:N] ({EPISODES} episodes)"
    add("sources", nargs="+", metavar="SOURCE", help=sources)
    shared.add_output(parser)
    shared.add_shares(parser, 0.1, "episodes")
    shared.add_max_bad_share(parser, "episodes")
    add = parser.add_argument_group("files").add_argument
    add("--environment", metavar="ID", help="Gymnasium environment of the episodes; policies are evaluated there")
    add(
        "--choices",
        type=positive_integer,
        metavar="N",
        help="number of actions (default: the environment's, or those found)",
    )
    bounds = "range of an action that is an array of numbers (default: the environment's, or that found)"
    add("--action-range", nargs=2, type=float, metavar=("LOW", "HIGH"), help=bounds)
    played = parser.add_argument_group("episodes that are played")
    add = played.add_argument
    delay = "range of the number of steps from key to door (default: 2 30)"
    add("--delay", nargs=2, type=positive_integer, default=[2, 30], metavar=("FEWEST", "MOST"), help=delay)
    keys = "number of colours of keys; chance is 1 in K (default: %(default)s)"
    add("--keys", type=positive_integer, default=4, metavar="K", help=keys)
    shared.add_seed(played, 0, "the episodes")
    return parser


def main(argv: list[str]) -> int:
    """Prepare a dataset of trajectories as the command line asks.

    Raises:
        ConfigError: the options contradict each other, or there is no such environment.
        DataError: a source cannot be used, or too many episodes are bad.
    """
    options = _parser().parse_args(argv)
    began = time.monotonic()
    report = Report("episodes")
    played = _played(options)
    place = shared.workplace(options)
    with place.entered(anew=True):  # episodes are read anew
        entries, returns = _prepare(place, report, played, options, argv)
    print("\n".join(report.lines()))
    for name, entry in entries.items():
        print(f"{name}: {entry['episodes']:,} episodes, {entry['steps']:,} steps")
    print(f"returns of training: mean {returns['mean']:.4g}, from {returns['worst']:.4g} to {returns['best']:.4g}")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _played(options: argparse.Namespace) -> tuple[str, dict[str, Any], int] | None:
    """The environment that is to be played, its settings, and how many episodes; None where there are files."""
    from data_prep.trajectories.controllers import SCRIPTED
    from pipeline.dataset.environments import KEY_TO_DOOR

    shared.check(options)
    if options.delay[0] > options.delay[1]:
        raise ConfigError(f"--delay {options.delay[0]} {options.delay[1]}: expected the fewest steps first")
    asked = [source for source in options.sources if source.startswith((BUILTIN.split(":")[0] + ":", GYMNASIUM))]
    if not asked:
        return None
    if given := [name for name in ("environment", "choices", "action_range") if getattr(options, name)]:
        raise ConfigError(f"--{given[0].replace('_', '-')} is of files: {asked[0]} knows its own")
    if len(options.sources) > 1:
        raise ConfigError(f"{asked[0]} is played for a dataset of its own: name no other source")
    kind, name, number = [*asked[0].split(":"), ""][:3]
    if not (number or str(EPISODES)).isdigit() or number == "0":
        raise ConfigError(f"{asked[0]}: {number!r} is no number of episodes")
    known = {KEY_TO_DOOR: f"{kind}:{name}" == BUILTIN, name: kind == GYMNASIUM[:-1] and name in SCRIPTED}
    if not any(known.values()):
        there = ", ".join([BUILTIN, *(GYMNASIUM + each for each in SCRIPTED)])
        raise ConfigError(f"nobody here can play {asked[0]}: choose one of {there}, or give files of episodes")
    settings = {"keys": options.keys, "delay": options.delay} if known[KEY_TO_DOOR] else {}
    return (KEY_TO_DOOR if known[KEY_TO_DOOR] else name), settings, int(number or EPISODES)


def _prepare(
    place: Workplace,
    report: Report,
    played: tuple[str, dict[str, Any], int] | None,
    options: argparse.Namespace,
    argv: Sequence[str],
) -> tuple[dict[str, Any], dict[str, float]]:
    from data_prep.trajectories import controllers
    from pipeline.dataset.environments import make

    name, settings = played[:2] if played else (options.environment, {})
    game = make(name, settings) if name else None
    bounds = _bounds(options) if game is None else Bounds.of_space(game.action_space)
    found = controllers.play(*played, options.seed) if played else _read(options.sources, report)
    episodes = list(_fitting(found, bounds, report))
    report.check(options.max_bad_share)
    if not episodes:
        raise DataError(f"{', '.join(options.sources)} holds no episode")
    size = episodes[0].observations.shape[1]
    if game is not None and (shown := _shown(game.observation_space)) != size:
        raise DataError(f"{name} shows {shown} numbers and the episodes hold {size}: name where they were played")
    splits = cut({"train": episodes}, shared.shares(options))
    for split, members in splits.items():
        if not members:
            raise DataError(f"no episode fell to the {split} split: prepare more, or give other shares")
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
        raise ConfigError("an action is one of --choices or lies in --action-range: give one of them")
    if options.action_range and not -math.inf < options.action_range[0] <= options.action_range[1] < math.inf:
        low, high = options.action_range
        raise ConfigError(f"--action-range {low:g} {high:g}: expected two finite numbers, the lower one first")
    low, high = (np.array(end) for end in options.action_range) if options.action_range else (None, None)
    return Bounds(options.choices, low, high)


def _read(sources: Sequence[str], report: Report) -> Iterator[Episode]:
    """The episodes of files; those that are no episodes are counted and named."""
    for source in sources:
        for name, fields in read(Path(source)):
            try:
                one = episode(name, fields)
            except Unfit as why:
                report.reject(name, str(why))
                continue
            if one is None:
                report.empty += 1
            else:
                yield one


def _fitting(found: Iterator[Episode], bounds: Bounds, report: Report) -> Iterator[Episode]:
    """The episodes that are like the first one and within the bounds; the others are counted and named."""
    first: Episode | None = None
    for one in found:
        first = first or one
        try:
            fitted = bounds.fitted(one, first)
        except Unfit as why:
            report.reject(one.name, str(why))
            continue
        report.documents += 1
        yield fitted


def _shown(space: Any) -> int:
    """Numbers of an observation.

    Raises:
        ConfigError: it is something else than an array of numbers.
    """
    if space.shape is None:
        raise ConfigError(f"observations of the kind {space} cannot be learned: only arrays of numbers")
    return int(np.prod(space.shape))


def _write(folder: Path, split: str, episodes: list[Episode]) -> dict[str, Any]:
    shard = write_episodes(folder / f"{split}.arrow", episodes)
    actions = episodes[0].actions
    return {
        "episodes": len(episodes),
        "steps": sum(len(one.rewards) for one in episodes),
        "observation": episodes[0].observations.shape[1],
        "action": 0 if actions.ndim == 1 else actions.shape[1],
        "shards": [shard._asdict()],
    }


def _spaces(train: list[Episode], episodes: list[Episode], bounds: Bounds) -> tuple[dict[str, Any], dict[str, float]]:
    """What a policy has to know of observations, actions and returns, and how good the players of training were."""
    seen = np.concatenate([one.observations for one in train])
    done = np.concatenate([one.actions for one in episodes])
    deviation = seen.std(0, dtype=np.float64)
    spaces: dict[str, Any] = {
        "observation_mean": seen.mean(0, dtype=np.float64).tolist(),
        "observation_deviation": np.where(deviation < LEAST, 1.0, deviation).tolist(),
        "choices": 0,
        "low": [],
        "high": [],
    }
    if done.ndim == 1:
        spaces["choices"] = bounds.choices or int(done.max()) + 1
    else:
        ends = (done.min(0), done.max(0)) if bounds.low is None else (bounds.low, bounds.high)
        low, high = (np.broadcast_to(np.array(end, np.float64), done.shape[1]) for end in ends)
        spaces |= {"low": low.tolist(), "high": np.maximum(high, low + LEAST).tolist()}
    totals = np.array([returns_to_go(one.rewards)[0] for one in train], np.float64)
    returns = {"mean": float(totals.mean()), "worst": float(totals.min()), "best": float(totals.max())}
    return {**spaces, "best_return": returns["best"], "return_scale": float(np.abs(totals).max()) or 1.0}, returns


if __name__ == "__main__":
    shared.run_as_script(main)
