"""Plots of forecasts show every value, with a legend."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipeline.evaluation.plots.figure import rendered, save
from pipeline.evaluation.plots.forecast import Panel, drawing

FLAT, RISING = np.zeros(5), np.arange(3.0)
KNOWN = Panel("a <b> $", ["1", "2", "3"], FLAT, RISING, RISING - 1, RISING + 1, np.array([1.0, np.nan, 2.0]))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_panel_holds_its_lines_and_its_interval() -> None:
    figure = drawing([KNOWN, KNOWN._replace(title="second")])
    assert [axes.get_title() for axes in figure.axes] == ["a <b> $, forecast from 2", "second, forecast from 2"]
    for axes in figure.axes:
        history, observed, forecast, begin = axes.lines
        assert history.get_xydata().tolist() == [[step, 0.0] for step in range(5)]
        assert observed.get_xdata().tolist() == forecast.get_xdata().tolist() == [5, 6, 7]
        np.testing.assert_array_equal(observed.get_ydata(), KNOWN.observed)
        assert forecast.get_ydata().tolist() == [0.0, 1.0, 2.0]
        assert begin.get_xdata() == [5, 5]
        [interval] = axes.collections
        assert {tuple(corner) for corner in interval.get_paths()[0].vertices.tolist()} == {
            (5.0 + step, value) for step in range(3) for value in (step - 1.0, step + 1.0)
        }
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "", "3"]
        assert axes.get_xticks().tolist() == [0, 5, 7]


@pytest.mark.parametrize(
    ("panels", "names"),
    [
        ([KNOWN], ["history", "observed later", "forecast", "10th to 90th percentile"]),
        ([KNOWN._replace(observed=None)], ["history", "forecast", "10th to 90th percentile"]),
        ([KNOWN._replace(observed=np.full(3, np.nan), low=RISING, high=RISING)], ["history", "forecast"]),
        ([KNOWN._replace(observed=None), KNOWN], ["history", "forecast", "10th to 90th percentile", "observed later"]),
    ],
)
def test_the_legend_names_exactly_what_is_drawn(panels: list[Panel], names: list[str]) -> None:
    assert legend(drawing(panels)) == names


@pytest.mark.parametrize("count", [1, 12])
def test_panels_do_not_overlap_and_names_are_drawn_literally(count: int, tmp_path: Path) -> None:
    figure = drawing([KNOWN._replace(title=f"日本 $\\foo$ {number}") for number in range(count)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        width, height = rendered(figure).size
        save(figure, tmp_path / "all.svg")
        warnings.filterwarnings("ignore", "Glyph")  # outside of `save`
        boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert 650 < width < 800
    assert 190 * count < height < 210 * count + 80
