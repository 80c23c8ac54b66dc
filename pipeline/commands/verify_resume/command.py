"""`unroll verify-resume CONFIG` tells whether an experiment, stopped and continued, ends like the straight one.

It is trained for a few steps without a stop, then again and again with a stop: by SIGTERM and by SIGKILL; in
training, in validation and while a checkpoint is written; at chosen and at random points. Short epochs make it
pass the end of some. The verdict compares every micro-batch (samples, generators, loss) and the last checkpoint.
"""

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments import Parser
from pipeline.errors import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import: only once there is something to do
    from pipeline.callbacks.fault_injection import Interrupt
    from pipeline.commands.verify_resume.interruption_points import Lengths
    from pipeline.commands.verify_resume.trial import Start, Trial

DIFFERS = 1


def main(argv: list[str], start: "Start | None" = None) -> int:
    """The verb; 0 if no stop made a difference, 1 if one did.

    Args:
        argv: the command line; what it does not know goes to `unroll fit`.
        start: how an attempt is started; as a new process by default.

    Raises:
        ConfigError: the config cannot be, or the straight run fails.
    """
    arguments, keys = parser().parse_known_args(argv)
    from pipeline.commands.verify_resume.interruption_points import Lengths, draw_interruptions, drawn
    from pipeline.commands.verify_resume.trial import Trial, start_process

    lengths, chance = Lengths.of(arguments.steps), random.Random(arguments.seed)
    given = [*(f"--config={config}" for config in arguments.config), *keys]
    sizes = divisions(given, arguments.world_sizes)
    home = make_home(arguments.output)
    trials: dict[int, Trial] = {}
    for size in sizes:
        devices = [f"--trainer.devices={size}"] if arguments.world_sizes else []
        own = [*given, *devices, *lengths.keys()]
        trials[size] = Trial(home / f"on-{size}", own, start or start_process)
    print(f"{lengths.run} steps, straight and stopped; the runs are in {home}", flush=True)
    equal: list[bool] = []
    for size, trial in trials.items():
        print(f"\non {size} process{'es' if size > 1 else ''}, stopped by", flush=True)
        slots = sizes[size] or 1
        stops = [
            *draw_interruptions(chance, lengths, size, slots),
            *drawn(chance, lengths, size, slots, arguments.random),
        ]
        equal += judge(trial, stops)
    if len(trials) > 1:
        equal.append(move(trials, lengths))
    return conclude(equal, home, kept=arguments.output is not None)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="unroll verify-resume",
        description="Does an experiment, stopped and continued, end in every bit like the straight one?",
        epilog="All else (--KEY VALUE) goes to `unroll fit`. Exit code 0: equal; 1: something differs.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("config", nargs="+", type=Path, metavar="CONFIG", help="an experiment, then overlays, as for `unroll fit`")
    add("--world-sizes", type=_numbers, metavar="N,N", help="numbers of processes (default: what the config says)")
    add("--steps", type=int, default=13, help="optimizer steps of each run (default: 13)")
    add("--random", type=int, default=3, metavar="N", help="random stops beside the chosen ones (default: 3)")
    add("--seed", type=int, default=0, help="of the random stops (default: 0)")
    add("--output", type=Path, metavar="DIR", help="keep the runs here (default: kept only if something differs)")
    return result


def divisions(given: list[str], sizes: list[int] | None) -> dict[int, int | None]:
    """Micro-batches a step for each number of processes; None where the data does not say.

    Raises:
        ConfigError: the config cannot be, or the processes cannot share a global batch.
    """
    from pipeline.data.batch_plan import Share
    from pipeline.distributed import launch
    from pipeline.training.config import parse_config

    found: dict[int, int | None] = {}
    for keys in [[f"--trainer.devices={size}"] for size in sizes] if sizes else [[]]:
        config = parse_config([*given, *keys]).config
        size, data = launch.world_size(vars(config.trainer)), vars(config.data.init_args)
        share = Share.of_config(data, size)
        found[size] = None if share is None else share.accumulation
    return found


def make_home(wanted: Path | None) -> Path:
    """A new directory for the runs.

    Raises:
        ConfigError: the one that is wanted is there already.
    """
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="verify-resume-"))
    if wanted.exists():
        raise ConfigError(f"{wanted} is there already: name another --output, or remove it")
    return wanted


def judge(trial: "Trial", stops: "list[list[Interrupt]]") -> Iterator[bool]:
    """Train straight, twice, then with each of the stops; tell of each, and whether it is equal.

    Where the straight run does not even equal itself, nothing is learned from stopping it.
    """
    from pipeline.commands.verify_resume.trial import first_difference

    difference = first_difference(trial.straight(), trial.straight("straight-again"))
    yield _tell("nothing, twice", [], difference)
    if difference is not None:
        print("  It is not the same twice even without a stop: nothing can be learned from stopping it.", flush=True)
        return
    for number, each in enumerate(stops, start=1):
        outcome = trial.stopped(f"stopped-{number:02d}", each)
        yield _tell(", then ".join(map(str, each)), outcome.resumed, outcome.difference)


def move(trials: "dict[int, Trial]", lengths: "Lengths") -> bool:
    """Move a run from the last number of processes to the first and back; whether it saw the same samples.

    Its sums are made in another order, and each process draws its own dropout: the losses are told, not judged.
    """
    from pipeline.callbacks.fault_injection import BeforeBatch
    from pipeline.commands.verify_resume.interruption_points import TERM

    first, *_, last = trials
    stops = [BeforeBatch(TERM, 0, step) for step in (lengths.run // 3, 2 * lengths.run // 3)]
    print(f"\nmoved from {last} processes to {first} and back, against {first}", flush=True)
    outcome, apart = trials[first].moved("moved", [trials[last], trials[first], trials[last]], stops)
    print(f"           losses differ by at most {apart:.1e}, relatively: by rounding, and by dropout if there is any")
    return _tell("the samples of every step", outcome.resumed, outcome.difference)


def conclude(equal: list[bool], home: Path, kept: bool) -> int:
    """The verdict, and the exit code."""
    if not all(equal):
        print(f"\nNOT EQUAL: {equal.count(False)} of {len(equal)}; the runs are kept in {home}", flush=True)
        return DIFFERS
    print(f"\nEQUAL: all {len(equal)}", flush=True)
    if not kept:
        shutil.rmtree(home)
    return 0


def _tell(stop: str, resumed: list[int], difference: str | None) -> bool:
    at = f", continued at step {' and '.join(map(str, resumed))}" if resumed else ""
    print(f"  {'equal  ' if difference is None else 'DIFFERS'}  {stop}{at}", flush=True)
    if difference is not None:
        print(f"           {difference}", flush=True)
    return difference is None


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
