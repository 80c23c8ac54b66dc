"""Merge runs of one entrant that differ only in their seed into one row of means with confidence intervals.

Student (1908), "The Probable Error of a Mean": for n values with mean m and standard deviation s (divided by n - 1),
the 95 % interval of the mean is m ± t s / sqrt(n), where t is the 97.5 % quantile of Student's t distribution with
n - 1 degrees of freedom.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

from pipeline.commands.compare.rows import QUALITY, Entry, Group, grouped
from pipeline.evaluation.plots.curves import Band
from pipeline.runs.journal import MetricSeries

QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)  # t for 1 to 30 degrees of freedom; 30 is used for more, which is slightly too wide
MEANS = (*QUALITY, "loss", "tokens", "tokens_per_second", "memory_gb", "seconds", "flops")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval: 0 for one value, NaN if a value is not finite."""
    if not all(map(math.isfinite, values)):
        return sum(values) / len(values), math.nan
    if len(values) < 2:
        return fmean(values), 0.0
    freedom = min(len(values) - 1, len(QUANTILES))
    return fmean(values), QUANTILES[freedom - 1] * stdev(values) / math.sqrt(len(values))


def together(entries: Iterable[Entry]) -> list[Group]:
    """Return the groups of a comparison, with one ranked row per entrant."""
    return [replace(group, entries=with_ranks(group.entries)) for group in grouped(merged(entries))]


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """Merge the rows of each entrant on each dataset; runs outside of a tournament are unchanged."""
    rows: dict[tuple[str | None, ...], list[Entry]] = {}
    for entry in entries:
        whose = (entry.tournament, entry.entrant, entry.dataset) if entry.entrant else (entry.name,)
        rows.setdefault(whose, []).append(entry)
    return [_one(members) if members[0].entrant else members[0] for members in rows.values()]


def _one(members: list[Entry]) -> Entry:
    """Return the row of an entrant: the mean of each figure over the seeds that have it."""
    found = {name: [v for one in members if (v := getattr(one, name)) is not None] for name in MEANS}
    measured = {name: interval(values) for name, values in found.items() if values}
    means: dict[str, Any] = {name: round(mean) if name == "tokens" else mean for name, (mean, _) in measured.items()}
    spread = {name: half for name in QUALITY if len(found[name]) > 1 and math.isfinite(half := measured[name][1])}
    named = members[0].entrant or members[0].name
    scores = {name: fmean([one.scores[name] for one in members if name in one.scores]) for name in members[0].scores}
    return replace(members[0], name=named, members=tuple(members), spread=spread, scores=scores, **means)


def with_ranks(entries: list[Entry]) -> list[Entry]:
    """Add ranks to the rows of entrants, sorted best first: 1, 2, 2, 4.

    A row shares the previous rank if its interval overlaps that of the first row with this rank.
    """
    found: list[Entry] = []
    leader: Entry | None = None
    for place, entry in enumerate(entries, 1):
        if not entry.members or entry.quality is None:
            found.append(entry)
            continue
        leader = leader if leader is not None and _overlap(leader, entry) else replace(entry, rank=place)
        found.append(replace(entry, rank=leader.rank))
    return found


def _overlap(better: Entry, worse: Entry) -> bool:
    assert better.quality is not None
    assert worse.quality is not None
    key = "perplexity" if better.perplexity is not None else "mse"
    return worse.quality - worse.spread.get(key, 0.0) <= better.quality + better.spread.get(key, 0.0)


def curve(entry: Entry, key: str) -> tuple[MetricSeries, Band | None]:
    """Return a quantity over training; for several seeds the mean at their common steps, and its interval."""
    columns = [one.journal.series(key) for one in entry.members or (entry,)]
    columns = [series for series in columns if series.values]
    if len(columns) < 2:
        return columns[0] if columns else MetricSeries([], [], [], []), None
    common = sorted(set(columns[0].steps).intersection(*(series.steps for series in columns[1:])))
    rows = [{step: row for step, *row in zip(*series, strict=True)} for series in columns]
    found = [interval([row[step][2] for row in rows]) for step in common]
    tokens = [round(fmean(row[step][0] for row in rows)) for step in common]
    seconds = [fmean(row[step][1] for row in rows) for step in common]
    means = MetricSeries(common, tokens, seconds, [mean for mean, _ in found])
    return means, Band([mean - half for mean, half in found], [mean + half for mean, half in found])
