"""`unroll tournament FILE...`: compare architectures on one dataset under one budget, with several seeds.

Each entrant and seed is a normal run, `runs/TOURNAMENT/ENTRANT-SEED`. After an interruption, the same command resumes
the tournament; finished runs are skipped. The results are shown by `unroll compare`. With the key `tune`, the best
values of each entrant are found first, see `unroll tune`.
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.arguments import Parser
from pipeline.commands import imports, planned_runs
from pipeline.commands.compare import command as compare
from pipeline.commands.compare.columns import short_number
from pipeline.commands.compare.rows import ENTRANT
from pipeline.commands.slurm import queue, submit
from pipeline.commands.slurm.batch_script import Element
from pipeline.commands.tune import command as tune
from pipeline.distributed import signals
from pipeline.errors import TRY_AGAIN, ConfigError
from pipeline.runs import record
from pipeline.runs.run import RUNS

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.commands.tournament.entrants import Entrant, Tournament
    from pipeline.commands.tune.tuning import Tuning


class Match(NamedTuple):
    """One run of a tournament."""

    tournament: str
    entrant: "Entrant"
    seed: int

    @property
    def run(self) -> Path:
        """Return the directory of the run."""
        return RUNS / self.tournament / f"{self.entrant.name}-{self.seed}"

    @property
    def arguments(self) -> list[str]:
        """Return the arguments of `unroll fit`, the first one a config."""
        group = [] if any("tracking.group" in word for word in self.entrant.arguments) else ["--tracking.group"]
        named = ["--run", str(self.run), "--seed_everything", str(self.seed)]
        return [*self.entrant.arguments, *named, *group, *([self.tournament] if group else [])]

    @property
    def is_over(self) -> bool:
        """Return whether the run has finished.

        Raises:
            ConfigError: a run of that name exists with another config.
        """
        advice = f"Move {self.run.parent} away, or rename the tournament's file"
        return planned_runs.run_has_finished(self.run, self.arguments, advice)

    def announce(self) -> None:
        """Record the entrant in the run, for `unroll compare`."""
        known = {"entrant": self.entrant.name, "seed": self.seed, "flops_per_token": self.entrant.flops_per_token}
        record.write_text(self.run, ENTRANT, json.dumps({"tournament": self.tournament, **known}))


def main(argv: list[str]) -> int:
    """Run the tournaments one after the other, or submit each to Slurm as an array.

    Returns:
        0, or the exit code of the first failed run (the others are run as well), or 75 after a stop.

    Raises:
        ConfigError: a tournament is invalid; nothing was started.
        DataError: the dataset is missing or damaged.
    """
    options = parser().parse_args(argv)
    if options.submit:
        queue.leave_outer_job()
    imports.load_lightning()
    from pipeline.commands.fit import quieten
    from pipeline.commands.tournament.entrants import entrants_of, read_tournament
    from pipeline.commands.tournament.tuned_entrants import tunings_of

    quieten()
    tournaments = [read_tournament(file) for file in options.files]
    if len({tournament.name for tournament in tournaments}) < len(tournaments):
        raise ConfigError(
            "FILE: two tournaments have the same name and would share their runs. Rename one of the files"
        )
    plans = [(tournament, entrants_of(tournament)) for tournament in tournaments]
    tunings = [tunings_of(tournament, entrants) for tournament, entrants in plans]
    code = 0
    for (tournament, entrants), own in zip(plans, tunings, strict=True):
        if not options.submit:
            print_entrants(tournament, entrants)
        ended = _hold(tournament, entrants, own, options)
        if ended == TRY_AGAIN:
            return TRY_AGAIN
        code = code or ended
    return code


def _hold(
    tournament: "Tournament", entrants: list["Entrant"], tunings: dict[str, "Tuning"], options: argparse.Namespace
) -> int:
    """Tune the entrants of a tournament, then train their runs, or submit what can run now; return the exit code."""
    from pipeline.commands.tournament.tuned_entrants import with_best_values, write_report

    if options.submit and tune.submit_rungs(tunings.values(), options, f"{tournament.name}-tuning"):
        return 0
    if not options.submit and not options.dry_run:
        signals.install()
        for tuning in tunings.values():
            if ended := tuning.train():
                return leave(tournament.name) if ended == TRY_AGAIN else ended
    waiting = [element for tuning in tunings.values() for element in tuning.standing().waiting.values()]
    if waiting:  # with --dry-run only
        print(*(f"unroll fit --config {shlex.join(element.arguments)}" for element in waiting), sep="\n")
        print("the runs of the tournament follow, with the best values")
        return 0
    tuned = with_best_values(entrants, tunings)
    matches = [Match(tournament.name, entrant, seed) for seed in tournament.seeds for entrant in tuned]
    if options.submit:
        hand_over(matches, options)
        return 0
    if options.dry_run:
        print(*(f"unroll fit --config {shlex.join(match.arguments)}" for match in matches), sep="\n")
        return 0
    ended = run_tournament(matches)
    if tunings and ended != TRY_AGAIN:
        print("", *write_report(tournament, tunings, [str(match.run) for match in matches]), sep="\n")
    return ended


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = Parser(prog="unroll tournament", description=__doc__)
    add = result.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="tournaments, such as configs/tournament/builtin.yaml")
    add("--submit", action="store_true", help="submit the runs to Slurm as a job array (requires --time)")
    submit.add_submit_options(result)
    result.set_defaults(prepare=None)  # steps and widths require an existing dataset
    return result


def print_entrants(tournament: "Tournament", entrants: list["Entrant"]) -> None:
    """Print size and budget of each entrant."""
    runs = len(entrants) * len(tournament.seeds)
    budget = ", ".join(f"{value:,.0f} {unit}" for unit, value in tournament.budget.items())
    print(f"tournament {tournament.name}: {len(entrants)} entrants, {runs} runs, {budget} each")
    for each in entrants:
        width = "" if each.width is None else f"width {each.width}, "
        steps = "until the time limit" if each.steps is None else f"{each.steps:,} steps"
        cost = f"{short_number(each.flops_per_token)} FLOPs per token"
        print(f"  {each.name:20}{width}{each.parameters:,} parameters, {cost}, {steps}", flush=True)


def hand_over(matches: list[Match], options: argparse.Namespace) -> None:
    """Submit the unfinished runs as one array."""
    waiting = [match for match in matches if not match.is_over]
    if not waiting:
        print(f"tournament {matches[0].tournament}: every run has finished")
        return
    elements = [Element(submit.checked(match.arguments, options), match.arguments) for match in waiting]
    if not options.dry_run:
        for match in waiting:
            match.announce()
    submit.submit_elements(elements, options, matches[0].tournament)
    if not options.dry_run:
        print(f"compare them when they have finished: unroll compare {RUNS / matches[0].tournament}/*-*")


def run_tournament(matches: list[Match]) -> int:
    """Run the unfinished runs, then compare all; return the exit code."""
    signals.install()
    code = 0
    for number, match in enumerate(matches, 1):
        if not planned_runs.wait_for(match.run):
            return leave(matches[0].tournament)
        over = match.is_over
        match.announce()  # not before the check that an existing run has the same config
        if over:
            print(f"{match.run} has already finished", flush=True)
            continue
        print(f"\n{match.run}, run {number} of {len(matches)}", flush=True)
        ended = planned_runs.run_unroll(["fit", "--config", *match.arguments])
        if ended == TRY_AGAIN or signals.requested():
            return leave(matches[0].tournament)
        if ended:
            print(f"{match.run} failed with exit code {ended}; the tournament continues", flush=True)
        code = code or ended
    signals.forget()
    page = matches[0].run.parent / "compare.html"
    compared = compare.main([*(str(match.run) for match in matches), "--html", str(page)])
    return code or compared


def leave(tournament: str) -> int:
    """Print how to resume the tournament; return the exit code."""
    print(f"tournament {tournament} stopped; the same command continues it", flush=True)
    return TRY_AGAIN
