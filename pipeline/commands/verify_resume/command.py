"""`unroll verify-resume CONFIG`: verify that an interrupted and resumed run equals an uninterrupted one.

The experiment is trained for a few steps without interruption, then several times with interruptions by SIGTERM and
SIGKILL: in training, in validation and while a checkpoint is written, at chosen and at random points. Epochs are short,
so that some of them end. Every micro-batch (samples, generators, loss) and the last checkpoint are compared.
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

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.callbacks.fault_injection import Interrupt
    from pipeline.commands.verify_resume.interruption_points import Lengths
    from pipeline.commands.verify_resume.trial import Start, Trial

DIFFERS = 1


def main(argv: list[str], start: "Start | None" = None) -> int:
    """Verify an experiment; return 0 if all runs are equal, else 1.

    Args:
        argv: the command line; unknown options are passed to `unroll fit`.
        start: starts an attempt; by default in a new process.

    Raises:
        ConfigError: the config is invalid, or the uninterrupted run fails.
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
    print(f"{lengths.run} steps per run, uninterrupted and interrupted; runs in {home}", flush=True)
    equal: list[bool] = []
    for size, trial in trials.items():
        print(f"\n{size} process{'es' if size > 1 else ''}, interrupted by", flush=True)
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
    """Return the command line parser."""
    result = Parser(
        prog="unroll verify-resume",
        description="Verify that an interrupted and resumed run is bitwise equal to an uninterrupted one.",
        epilog="Other options (--KEY VALUE) are passed to `unroll fit`. Exit code 0: equal; 1: different.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("config", nargs="+", type=Path, metavar="CONFIG", help="an experiment, then overlays, as for `unroll fit`")
    add("--world-sizes", type=_numbers, metavar="N,N", help="numbers of processes (default: as in the config)")
    add("--steps", type=int, default=13, help="optimizer steps per run (default: 13)")
    add("--random", type=int, default=3, metavar="N", help="number of additional random interruptions (default: 3)")
    add("--seed", type=int, default=0, help="seed of the random interruptions (default: 0)")
    add("--output", type=Path, metavar="DIR", help="keep the runs in DIR (default: kept only if one differs)")
    return result


def divisions(given: list[str], sizes: list[int] | None) -> dict[int, int | None]:
    """Return the micro-batches per step for each number of processes; None if the data does not define them.

    Raises:
        ConfigError: the config is invalid, or the global batch is not divisible by the processes.
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


def make_home(output: Path | None) -> Path:
    """Return a new directory for the runs.

    Raises:
        ConfigError: the given directory already exists.
    """
    if output is None:
        return Path(tempfile.mkdtemp(prefix="verify-resume-"))
    if output.exists():
        raise ConfigError(f"--output={output}: already exists. Give another directory, or remove it")
    return output


def judge(trial: "Trial", stops: "list[list[Interrupt]]") -> Iterator[bool]:
    """Train twice without interruption, then with each interruption; print and yield whether the runs are equal.

    If two uninterrupted runs differ, the experiment is not reproducible and interruptions are not tried.
    """
    from pipeline.commands.verify_resume.trial import first_difference

    difference = first_difference(trial.straight(), trial.straight("straight-again"))
    yield _print_verdict("nothing (run twice)", [], difference)
    if difference is not None:
        print("  The experiment is not reproducible: two uninterrupted runs differ.", flush=True)
        return
    for number, each in enumerate(stops, start=1):
        outcome = trial.stopped(f"stopped-{number:02d}", each)
        yield _print_verdict(", then ".join(map(str, each)), outcome.resumed, outcome.difference)


def move(trials: "dict[int, Trial]", lengths: "Lengths") -> bool:
    """Move a run from the last number of processes to the first and back; return whether it read the same samples.

    The losses are only printed: sums have another order, and each process draws its own dropout masks.
    """
    from pipeline.callbacks.fault_injection import BeforeBatch
    from pipeline.commands.verify_resume.interruption_points import TERM

    first, *_, last = trials
    stops = [BeforeBatch(TERM, 0, step) for step in (lengths.run // 3, 2 * lengths.run // 3)]
    print(f"\nmoved from {last} processes to {first} and back, against {first}", flush=True)
    outcome, apart = trials[first].moved("moved", [trials[last], trials[first], trials[last]], stops)
    print(f"           relative difference of losses: at most {apart:.1e} (by rounding, and by dropout if used)")
    return _print_verdict("the samples of every step", outcome.resumed, outcome.difference)


def conclude(equal: list[bool], home: Path, kept: bool) -> int:
    """Print the verdict and return the exit code."""
    if not all(equal):
        print(f"\nNOT EQUAL: {equal.count(False)} of {len(equal)}; the runs are kept in {home}", flush=True)
        return DIFFERS
    print(f"\nEQUAL: all {len(equal)}", flush=True)
    if not kept:
        shutil.rmtree(home)
    return 0


def _print_verdict(stop: str, resumed: list[int], difference: str | None) -> bool:
    at = f", resumed at step {' and '.join(map(str, resumed))}" if resumed else ""
    print(f"  {'equal  ' if difference is None else 'DIFFERS'}  {stop}{at}", flush=True)
    if difference is not None:
        print(f"           {difference}", flush=True)
    return difference is None


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
