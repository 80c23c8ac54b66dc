"""Plots of forecasts: history, forecast with its interval, and later observations if known.

Legend: L steps of a context, H of a horizon.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float

from pipeline.evaluation.plots.figure import blank

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.2, 2.0  # size of a panel in inches
HISTORY, OBSERVED, FORECAST = "#333333", "#d2691e", "#0067c0"


class LineStyle(TypedDict):
    """Style of all lines."""

    marker: str
    markersize: float
    linewidth: float


class Panel(NamedTuple):
    """One forecast to plot."""

    title: str
    stamps: Sequence[str]
    """Times of the first step of the context, of the first and of the last step of the horizon."""
    context: Float[np.ndarray, " L"]
    forecast: Float[np.ndarray, " H"]
    low: Float[np.ndarray, " H"]
    high: Float[np.ndarray, " H"]
    observed: Float[np.ndarray, " H"] | None = None
    """NaN at gaps of the observations; None if they are not known yet."""


def drawing(panels: Sequence[Panel]) -> "Figure":
    """Plot all panels in a column, with one common legend."""
    figure = blank(WIDTH, HEIGHT * len(panels) + 0.4)
    handles: dict[str, Artist] = {}
    for panel, axes in zip(panels, figure.subplots(len(panels), squeeze=False)[:, 0], strict=True):
        _draw(panel, axes)
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw(panel: Panel, axes: "Axes") -> None:
    begin, end = len(panel.context), len(panel.context) + len(panel.forecast)
    ahead = range(begin, end)
    style: LineStyle = {"marker": ".", "markersize": 4, "linewidth": 1.3}  # A dot shows a value between gaps.
    axes.plot(panel.context, color=HISTORY, label="history", **style)
    if panel.observed is not None and np.isfinite(panel.observed).any():
        axes.plot(ahead, panel.observed, color=OBSERVED, label="observed later", **style)
    axes.plot(ahead, panel.forecast, color=FORECAST, label="forecast", **style)
    if (panel.low < panel.high).any():
        axes.fill_between(
            ahead, panel.low, panel.high, color=FORECAST, alpha=0.2, linewidth=0, label="10th to 90th percentile"
        )
    axes.axvline(begin, color="0.7", linewidth=1, zorder=0)
    axes.set_title(f"{panel.title}, forecast from {panel.stamps[1]}", parse_math=False, fontsize=10)
    axes.set_xticks([0, begin, end - 1], [panel.stamps[0], "", panel.stamps[2]])
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", color="0.9")
    axes.margins(x=0.02)
