"""Curves are thinned, broken at gaps and drawn on axes with round ticks."""

import math

import pytest

from pipeline.evaluation.plots.curves import Axis, Chart, Curve, axes, path, svg, thinned, ticks
from pipeline.runs.journal import MetricSeries


def test_thinning_keeps_ends_and_spikes():
    values = [1.0] * 5000
    values[1234], values[4321] = 99.0, -7.0
    series = thinned(Curve("a", 0, MetricSeries(list(range(5000)), list(range(5000)), [0.0] * 5000, values))).series
    assert len(series.values) <= 610
    assert {99.0, -7.0} <= set(series.values)
    assert (series.steps[0], series.steps[-1]) == (0, 4999)
    assert series.steps == sorted(series.steps)


def test_a_gap_breaks_the_line():
    series = MetricSeries([1, 2, 3, 4], [0] * 4, [0.0] * 4, [1.0, math.inf, 2.0, 3.0])
    assert path(series, Axis(0, 4, 0, 4), Axis(0, 4, 0, 4)) == "M1.0 1.0h0M3.0 2.0h0L4.0 3.0"


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (Axis(0, 10, 0, 1), [0, 2, 4, 6, 8, 10]),
        (Axis(0, 2000, 0, 1), [0, 500, 1000, 1500, 2000]),
        (Axis(1.93, 2.31, 0, 1), [2.0, 2.1, 2.2, 2.3]),
        (Axis(30, 90, 0, 1, True), [30, 40, 50, 60, 70, 80, 90]),
        (Axis(20, 600, 0, 1, True), [20, 50, 100, 200, 500]),
        (Axis(3, 2000, 0, 1, True), [3, 10, 30, 100, 300, 1000]),
    ],
)
def test_ticks_are_round(axis, expected):
    found = ticks(axis, 6)
    assert found == pytest.approx(expected)
    assert 3 <= len(found) <= 8
    assert all(axis.low <= value <= axis.high for value in found)


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances():
    axis = Axis(1, 100, 0, 10, True)
    assert [axis.place(value) for value in (1, 10, 100)] == pytest.approx([0, 5, 10])


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0], [math.nan, 2.0], [1e-9, 1e9]])
def test_any_curve_can_be_drawn(values, logarithmic):
    count = len(values)
    series = MetricSeries(list(range(count)), [0] * count, [0.0] * count, values)
    chart = Chart("k", "Title", "unit", logarithmic, [Curve("a", 0, series)], ("level", 2.0))
    assert "nan" not in svg(chart, "0")
    x, y = axes(chart)
    assert x.high > x.low
    assert y.high > y.low
