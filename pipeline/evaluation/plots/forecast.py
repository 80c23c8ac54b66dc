"""Forecasts drawn: the history, the forecast with its interval, and what was observed later where that is known.

Legend: L steps of a context, H of a horizon.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from pipeline.evaluation.plots.figure import blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.2, 2.0  # of a panel, in inches
HISTORY, OBSERVED, FORECAST = "#333333", "#d2691e", "#0067c0"


class Panel(NamedTuple):
    """One forecast to be drawn."""

    title: str
    stamps: Sequence[str]
    """Of the first step of the context, of the horizon, and of its last step."""
    context: Float[np.ndarray, " L"]
    said: Float[np.ndarray, " H"]
    low: Float[np.ndarray, " H"]
    high: Float[np.ndarray, " H"]
    came: Float[np.ndarray, " H"] | None = None
    """NaN where nothing was observed; None where it is not known yet."""


def drawing(panels: Sequence[Panel]) -> "Figure":
    """All panels, one below the other, and one legend of what is drawn in any of them."""
    figure = blank(WIDTH, HEIGHT * len(panels) + 0.4)
    handles: dict[str, Any] = {}
    for panel, axes in zip(panels, figure.subplots(len(panels), squeeze=False)[:, 0], strict=True):
        _draw(panel, axes)
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw(panel: Panel, axes: Any) -> None:
    begin, end = len(panel.context), len(panel.context) + len(panel.said)
    ahead = range(begin, end)
    style: dict[str, Any] = {"marker": ".", "markersize": 4, "linewidth": 1.3}  # a dot shows a value between gaps
    axes.plot(panel.context, color=HISTORY, label="history", **style)
    if panel.came is not None and np.isfinite(panel.came).any():
        axes.plot(ahead, panel.came, color=OBSERVED, label="observed later", **style)
    axes.plot(ahead, panel.said, color=FORECAST, label="forecast", **style)
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
