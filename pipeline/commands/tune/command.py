"""`unroll tune CONFIG... --over KEY=VALUES --budget tokens=N`: find the best values by successive halving.

Each combination of values is a trial: a normal run, `runs/NAME/trial-K`. The better half of each rung is continued
from its checkpoints. After an interruption, the same command continues. The results are `tuned/NAME.yaml`, an
overlay for `--config`, `tuned/NAME.json` with all trials, and `tuned/NAME.svg`, a plot of the loss.
"""

import argparse
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments import Parser, positive_integer
from pipeline.commands import imports
from pipeline.commands.slurm import layout, queue, submit
from pipeline.commands.tune.values import EXPECTED, read_key
from pipeline.distributed import signals
from pipeline.errors import ConfigError
from pipeline.runs.run import directory_of

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.commands.tune.tuning import Tuning

TUNED = Path("tuned")
UNITS = ("tokens", "steps", "flops")


def main(argv: list[str]) -> int:
    """Train the trials of one experiment, or submit those of the current rung to Slurm as an array.

    Returns:
        0, or the exit code of a failed trial, or 75 after a stop.

    Raises:
        ConfigError: a config, a key or the budget is invalid, or all trials diverged.
        DataError: the dataset is missing or damaged.
    """
    own, overrides = layout.divided(argv)
    options = parser().parse_args(own)
    keys, budget = [read_key(text) for text in options.over], read_budget(options.budget)
    if options.submit:
        queue.leave_outer_job()
    imports.load_lightning()
    from pipeline.commands.fit import quieten
    from pipeline.commands.tune.result import lines_of, write_tuning
    from pipeline.commands.tune.tuning import tuning_of
    from pipeline.training.config import parse_config, run_directory

    quieten()
    first, *others = options.configs
    arguments = [first, *(word for other in others for word in ("--config", other)), *overrides]
    name = options.name or run_directory(parse_config(["--config", *arguments]).config).name
    if Path(name).name != name:
        raise ConfigError(f"--name={name}: expected a name, got a path. Choose another name")
    tuning = tuning_of(directory_of(f"tune-{name}"), arguments, keys, budget, widen=options.widen)
    print(*plan_of(tuning), sep="\n", flush=True)
    if options.submit:
        if submit_rungs([tuning], options, tuning.home.name):
            return 0
    elif options.dry_run:
        waiting = tuning.standing().waiting.values()
        print(*(f"unroll fit --config {shlex.join(element.arguments)}" for element in waiting), sep="\n")
        return 0
    else:
        signals.install()
        if code := tuning.train(options.at_once):
            print(f"{tuning.home} stopped; the same command continues it", flush=True)
            return code
        signals.forget()
    files = write_tuning(tuning, TUNED / name)
    print("", *lines_of(tuning), f"results: {', '.join(map(str, files))}", sep="\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = Parser(
        prog="unroll tune", description=f"{__doc__}\nOptions after -- override the config, as for `unroll fit`."
    )
    add = result.add_argument
    add("configs", nargs="+", metavar="CONFIG", help="an experiment, then overlays")
    add("--over", action="append", required=True, metavar="KEY=VALUES", help=f"{EXPECTED} (repeatable)")
    add("--budget", required=True, metavar="UNIT=N", help="tokens=N, steps=N or flops=N, for all trials together")
    add("--name", help="name of the tuning (default: from the first config)")
    add("--widen", action="store_true", help="add a trial one step outside of a range whose edge is best")
    add(
        "--at-once",
        type=positive_integer,
        default=1,
        metavar="N",
        help="trials that train at the same time, each on a GPU of its own (default: 1)",
    )
    add("--submit", action="store_true", help="submit the trials of a rung to Slurm as a job array (requires --time)")
    submit.add_submit_options(result)
    result.set_defaults(prepare=None)  # the budget requires an existing dataset
    return result


def read_budget(text: str) -> dict[str, float]:
    """Read `UNIT=N`.

    Raises:
        ConfigError: the unit is unknown, or the amount is not a positive number.
    """
    unit, _, amount = text.partition("=")
    try:
        number = float(amount)
    except ValueError:
        number = 0.0
    if unit not in UNITS or not 0 < number < float("inf"):
        raise ConfigError(f"--budget={text}: expected one of tokens=N, steps=N and flops=N, N a number above 0")
    return {unit: number}


def plan_of(tuning: "Tuning") -> Iterable[str]:
    """Return the rungs as lines."""
    yield f"tuning {tuning.home}: {len(tuning.trials)} trials, compared by {tuning.metric}"
    for number, rung in enumerate(tuning.rungs, 1):
        yield f"  rung {number}: {rung.trials} trials to step {rung.steps:,}"


def submit_rungs(tunings: "Iterable[Tuning]", options: argparse.Namespace, name: str) -> bool:
    """Submit the trials of the current rungs as one array; return False if no trial is left.

    Args:
        tunings: one or several tunings.
        options: the parsed command line.
        name: name of the job.
    """
    waiting = [element for tuning in tunings for element in tuning.standing().waiting.values()]
    if not waiting:
        return False
    for element in waiting:
        submit.checked(element.arguments, options)
    submit.submit_elements(waiting, options, name)
    if not options.dry_run:
        print("when the job has finished, repeat the command: it submits the next rung, or writes the results")
    return True
