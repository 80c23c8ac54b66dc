"""Rows, curves and ranks over seeds agree with the formulas."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from pipeline.commands.compare.columns import RANK
from pipeline.commands.compare.rows import Entry, Group, cell, gather
from pipeline.commands.compare.seeds import QUANTILES, curve, interval, merged, together, with_ranks
from pipeline.evaluation.plots.curves import Axis, Curve, area
from pipeline.runs.journal import Journal, JournalWriter, MetricSeries, read_journal

WriteJournal = Callable[[int, dict[int, float]], Journal]


@pytest.fixture
def journal(tmp_path: Path) -> WriteJournal:
    """`journal(SEED, {STEP: LOSS})`: as a run writes it."""

    def written(seed: int, losses: dict[int, float]) -> Journal:
        writer = JournalWriter(tmp_path / f"run-{seed}")
        for step, loss in losses.items():
            writer.metrics(1, step, 100 * step, seed * step, {"val/perplexity": loss})
        return read_journal(writer.path.parent)

    return written


def entrant(name: str, *perplexities: float | None, **figures: Any) -> list[Entry]:
    """Return the runs of an entrant, one per perplexity."""
    known = {"entrant": name, "tournament": "t", "dataset": "c", **figures}
    return [Entry(f"{name}-{seed}", perplexity=each, **known) for seed, each in enumerate(perplexities, 1)]


def test_the_interval_is_students() -> None:
    values = [2.0, 2.5, 4.0]
    assert interval(values) == (fmean(values), pytest.approx(4.303 * stdev(values) / math.sqrt(3)))
    assert interval([2.0]) == (2.0, 0.0)
    many = [float(k) for k in range(50)]
    assert interval(many)[1] == pytest.approx(2.042 * stdev(many) / math.sqrt(50))


def test_the_quantiles_are_those_of_students_distribution() -> None:
    """Its density, integrated up to the quantile."""
    for freedom, quantile in enumerate(QUANTILES, 1):
        scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        steps = 4000
        width = quantile / steps
        places = [width * (k + 0.5) for k in range(steps)]
        below = 0.5 + width * sum(scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2) for x in places)
        assert below == pytest.approx(0.975, abs=3e-5)  # half of the last digit, times the density


def test_a_row_of_several_seeds_has_their_means_and_the_interval_of_its_quality() -> None:
    [row] = merged(entrant("lstm", 3.0, 4.0, 5.0, seconds=8.0, parameters=7))
    assert (row.name, row.perplexity, row.seconds, row.parameters) == ("lstm", 4.0, 8.0, 7)
    assert row.spread == {"perplexity": pytest.approx(4.303 / math.sqrt(3))}
    assert [one.name for one in row.members] == ["lstm-1", "lstm-2", "lstm-3"]
    group = Group("c", "data", [row])
    assert [cell(column, row) for column in group.columns if column.key == "perplexity"] == ["4.00 ± 2.48"]


def test_a_seed_without_a_validation_does_not_count() -> None:
    [row] = merged(entrant("lstm", 3.0, None, 5.0))
    assert row.perplexity == 4.0
    assert row.spread["perplexity"] == pytest.approx(12.706 * math.sqrt(2) / math.sqrt(2))


def test_runs_outside_of_a_tournament_stay_rows_of_their_own_and_get_no_rank() -> None:
    runs = [Entry("one", perplexity=2.0, dataset="c"), Entry("two", perplexity=1.0, dataset="c")]
    [group] = together(runs)
    assert [entry.name for entry in group.entries] == ["two", "one"]
    assert RANK not in group.columns


def test_one_seed_has_no_interval() -> None:
    [row] = merged(entrant("lstm", 3.0))
    assert (row.name, row.spread) == ("lstm", {})


def rows(*given: tuple[float, float]) -> list[Entry]:
    """Rows with a perplexity and half its interval."""
    member = (Entry("seed"),)
    return [
        Entry(f"{n}", perplexity=mean, spread={"perplexity": half}, members=member)
        for n, (mean, half) in enumerate(given)
    ]


@pytest.mark.parametrize(
    ("given", "ranks"),
    [
        ([(1, 0), (2, 0), (3, 0)], [1, 2, 3]),
        ([(1, 0), (1, 0), (3, 0)], [1, 1, 3]),
        ([(1, 0.5), (2, 0.5), (2.5, 0.5), (3.5, 0.6)], [1, 1, 3, 3]),  # touching intervals tie; ties are not transitive
        ([(1, 0.1), (2, 0.5), (2.4, 0.1), (9, 0)], [1, 2, 2, 4]),
    ],
)
def test_intervals_that_overlap_that_of_the_first_of_a_rank_share_it(
    given: list[tuple[float, float]], ranks: list[int]
) -> None:
    assert [entry.rank for entry in with_ranks(rows(*given))] == ranks


def test_a_row_without_quality_has_no_rank() -> None:
    ranked = with_ranks([*rows((1, 0)), replace(rows((1, 0))[0], perplexity=None)])
    assert [entry.rank for entry in ranked] == [1, None]


def test_forecasts_are_ranked_by_their_error() -> None:
    found = [
        replace(entry, perplexity=None, mse=mse, spread={"mse": 0.2})
        for entry, mse in zip(rows((0, 0)) * 2, (1, 2), strict=True)
    ]
    assert [entry.rank for entry in with_ranks(found)] == [1, 2]


def test_a_curve_over_seeds_is_the_mean_at_the_steps_that_all_have(journal: WriteJournal) -> None:
    members = [
        Entry("a-1", journal(1, {10: 4.0, 20: 3.0, 30: 2.0})),
        Entry("a-2", journal(2, {10: 5.0, 20: 3.0, 31: 2.0})),
        Entry("a-3", journal(3, {10: 9.0, 20: 3.0})),
    ]
    series, band = curve(Entry("a", members=tuple(members)), "val/perplexity")
    assert series == MetricSeries([10, 20], [1000, 2000], [20.0, 40.0], [6.0, 3.0])
    half = 4.303 * stdev([4.0, 5.0, 9.0]) / math.sqrt(3)
    assert band is not None
    assert band.low == pytest.approx([6 - half, 3])
    assert band.high == pytest.approx([6 + half, 3])


def test_a_curve_of_one_run_has_no_band(journal: WriteJournal) -> None:
    entry = Entry("a", journal(1, {10: 4.0}))
    assert curve(entry, "val/perplexity") == (entry.journal.series("val/perplexity"), None)
    assert curve(Entry("a", members=(entry, Entry("b"))), "val/perplexity")[1] is None
    assert curve(Entry("a"), "val/perplexity")[0].values == []


def test_the_outline_of_a_band_follows_the_upper_edge_then_the_lower(journal: WriteJournal) -> None:
    from pipeline.evaluation.plots.curves import Band

    series = MetricSeries([1, 2, 3], [0] * 3, [0.0] * 3, [2.0] * 3)
    band = Band([1.0, math.nan, -5.0], [3.0, 3.0, 4.0])
    assert area(Curve("a", 0, series, band), Axis(0, 4, 0, 4), Axis(0, 4, 0, 4)) == "M1.0 3.0L3.0 4.0L3.0 0.0L1.0 1.0Z"


def test_a_run_of_a_tournament_has_an_entrant_and_a_cost(tmp_path: Path) -> None:
    run = tmp_path / "gru-2"
    writer = JournalWriter(run)
    writer.metrics(1, 3, 300, 9.0, {"val/perplexity": 5.0})
    (run / "run.json").write_text(json.dumps({"format": 1, "dataset": {"path": "data", "checksum": "c"}}))
    known = {"tournament": "small", "entrant": "gru", "seed": 2, "flops_per_token": 1000.0}
    (run / "entrant.json").write_text(json.dumps(known))
    entry, _ = gather(str(run))
    assert (entry.tournament, entry.entrant, entry.flops, entry.directory) == ("small", "gru", 300_000.0, run)
    (run / "entrant.json").write_text("{")
    entry, lines = gather(str(run))
    assert entry.entrant is None
    assert lines == [f"{run / 'entrant.json'} cannot be read: the run is shown without its entrant"]


def test_a_value_that_is_not_finite_leaves_no_interval(journal: WriteJournal) -> None:
    mean, half = interval([math.inf, 5.0])
    assert mean == math.inf
    assert math.isnan(half)
    [row] = merged(entrant("lstm", math.inf, 5.0))
    assert row.perplexity == math.inf
    assert row.spread == {}
    journals = [journal(1, {1: math.nan, 2: 3.0}), journal(2, {1: 4.0, 2: 5.0})]
    entries = [Entry(f"lstm-{k}", each, entrant="lstm") for k, each in enumerate(journals, 1)]
    series, band = curve(replace(entries[0], members=tuple(entries)), "val/perplexity")
    assert math.isnan(series.values[0])
    assert series.values[1] == 4.0
    assert band is not None
    drawn = Curve("lstm", 0, series, band)
    assert "nan" not in area(drawn, Axis(0, 2, 0, 100), Axis(0, 20, 100, 0))
