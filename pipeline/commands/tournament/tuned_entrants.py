"""Tune each entrant of a tournament before its runs: the same values, rungs and budget for all of them.

Each entrant has a tuning `runs/TOURNAMENT/tuning/ENTRANT`. Its best values follow its own settings in all of its runs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from pipeline.commands.budgets import words
from pipeline.commands.compare.rows import gather
from pipeline.commands.tournament.entrants import Entrant, Tournament
from pipeline.commands.tune.result import TuningCost, best_values, cost_of_trials, lines_of, write_tuning
from pipeline.commands.tune.tuning import Tuning, tuning_of
from pipeline.commands.tune.values import tuned_key
from pipeline.errors import UserError
from pipeline.runs.record import write_text
from pipeline.runs.run import RUNS

REPORT = "tuning.json"


def tunings_of(tournament: Tournament, entrants: Sequence[Entrant]) -> dict[str, Tuning]:
    """Return the tuning of each entrant by its name; none if the tournament's file has no key `tune`.

    Raises:
        UserError: a key does not exist in an entrant's config, a value is invalid, or the budget is too small.
    """
    if tournament.tune is None:
        return {}
    found = {}
    for entrant in entrants:
        home = RUNS / tournament.name / "tuning" / entrant.name
        try:
            keys = [tuned_key(key, values) for key, values in tournament.tune["over"].items()]
            found[entrant.name] = tuning_of(home, entrant.arguments, keys, tournament.tune["budget"], entrant.cost)
        except UserError as error:
            raise type(error)(f"{tournament.name}, tune, entrant {entrant.name}: {error}") from error
    return found


def with_best_values(entrants: Sequence[Entrant], tunings: Mapping[str, Tuning]) -> list[Entrant]:
    """Return the entrants with the best values of their complete tunings."""
    return [
        entrant._replace(arguments=[*entrant.arguments, *words(best_values(tunings[entrant.name]))])
        if entrant.name in tunings
        else entrant
        for entrant in entrants
    ]


def write_report(tournament: Tournament, tunings: Mapping[str, Tuning], runs: Sequence[str]) -> Iterator[str]:
    """Write the results of all tunings beside their runs; return the report as lines.

    Args:
        tournament: the tournament.
        tunings: the complete tuning of each entrant.
        runs: the runs of the tournament.
    """
    home = RUNS / tournament.name
    costs = {name: cost_of_trials(tuning) for name, tuning in tunings.items()}
    for name, tuning in tunings.items():
        write_tuning(tuning, tuning.home.with_name(name))
        yield f"{name}: {'; '.join(lines_of(tuning))}"
    tuned = reduce(TuningCost.plus, costs.values())
    entries = [gather(run)[0] for run in runs]
    trained = TuningCost(
        len(entries),
        sum(entry.tokens or 0 for entry in entries),
        sum(entry.flops or 0.0 for entry in entries),
        sum(entry.seconds or 0.0 for entry in entries),
    )
    record = {
        "entrants": {
            name: {"values": best_values(tuning), **costs[name]._asdict()} for name, tuning in tunings.items()
        },
        "tuning": tuned._asdict(),
        "runs": trained._asdict(),
        "total": tuned.plus(trained)._asdict(),
    }
    write_text(home, REPORT, json.dumps(record, indent=1))
    yield f"tuning of all entrants: {tuned}"
    yield f"with the runs of the tournament: {tuned.plus(trained)}"
    yield f"trials, overlays and plots: {home}/tuning, {home / REPORT}"
