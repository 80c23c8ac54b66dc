"""Plots of a diagnosis: gradient by lag, loss by position, gate saturation, and attention.

Legend: N heads, T positions, S attended positions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from pipeline.evaluation.diagnosis import HIGH, LOW, Diagnosis, Maps
from pipeline.evaluation.plots.attention import HEAT
from pipeline.evaluation.plots.figure import blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from matplotlib.lines import Line2D

WIDTH, HEIGHT = 7.0, 3.2  # size of a chart in inches
LEGEND, BAR, MAP = 0.12, 0.22, 1.5  # inches per name in the legend, per gate's bar and per attention map
SHOWN = 256  # maximum number of positions of an attention map, the last ones
Points = Sequence[tuple[int | float, float]]


def diagnosis_picture(found: Mapping[str, Diagnosis], maps: Maps) -> "Figure":
    """Plot gradient and loss of all runs in one chart each, and for a single run also its gates and attention.

    Args:
        found: diagnoses by the name of the run.
        maps: attention maps by layer.
    """
    gates, maps = (next(iter(found.values())).gates, maps) if len(found) == 1 else ({}, {})
    lines, bars, attention = 2 * HEIGHT + LEGEND * len(found), BAR * len(gates) + 0.9, MAP * len(maps) + 0.4
    heights = [lines, *([bars] if gates else []), *([attention] if maps else [])]
    heads = max((len(each) for each in maps.values()), default=0)
    figure = blank(max(WIDTH, MAP * heads), sum(heights))
    parts = figure.subfigures(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    upper, lower = parts[0].subplots(2)
    gradients = {name: list(enumerate(one.gradient)) for name, one in found.items()}
    losses = {name: [(k, np.nan if v is None else v) for k, v in enumerate(one.loss)] for name, one in found.items()}
    upper.set_yscale("log")
    _lines(upper, "norm of the gradient of a loss by the input k positions back", "k", gradients)
    _lines(lower, "loss by position", "position", losses)
    _name(parts[0], upper.lines, found)
    if gates:
        _bars(parts[1], gates)
    if maps:
        _attention_maps(parts[-1], maps)
    return figure


def chart(title: str, under: str, curves: Mapping[str, Points]) -> "Figure":
    """Plot lines over a common axis.

    Args:
        title: title of the chart.
        under: label of the x axis.
        curves: points by the name of the line.
    """
    figure = blank(WIDTH, HEIGHT + LEGEND * len(curves))
    axes = figure.subplots()
    _lines(axes, title, under, curves)
    _name(figure, axes.lines, curves)
    return figure


def _lines(axes: "Axes", title: str, under: str, curves: Mapping[str, Points]) -> None:
    """Plot lines, with gaps at values that are not finite, or not positive on a logarithmic axis."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(under)
    axes.grid(color="0.9")
    for number, points in enumerate(curves.values()):
        x, y = np.array(points, float).reshape(-1, 2).T
        y = np.where((y > 0) | (axes.get_yscale() == "linear"), y, np.nan)
        dashes = ("-", "--", ":", "-.")[number // 10 % 4]  # Colors repeat after ten.
        axes.plot(x, y, linestyle=dashes, marker=".", markersize=4, linewidth=1.3)  # A dot shows a value between gaps.
    axes.locator_params(axis="x", integer=True)


def _name(part: "FigureBase", lines: Sequence["Line2D"], names: Iterable[str]) -> None:
    """Add a legend of lines, unless no line has a name."""
    if any(names):
        legend = part.legend(lines, [*names], loc="outside lower center", ncols=2, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _bars(part: "FigureBase", gates: Mapping[str, Mapping[str, float]]) -> None:
    """Plot a bar for each gate: the fractions of its values that are nearly closed, in between, and nearly open."""
    axes, rows = part.subplots(), range(len(gates))
    low, high = (np.array([shares[side] for shares in gates.values()]) for side in ("low", "high"))
    axes.barh(rows, low, color="#5a2d82", label=f"below {LOW}")
    axes.barh(rows, 1 - low - high, left=low, color="#dddddd", label="between")
    axes.barh(rows, high, left=1 - high, color="#e0a800", label=f"above {HIGH}")
    axes.set_yticks(rows, [*gates])
    axes.set(xlim=(0, 1), ylim=(len(gates) - 0.5, -0.5))
    axes.set_title("fraction of the values of each gate", fontsize=10)
    part.legend(loc="outside lower center", ncols=3, frameon=False)


def _attention_maps(part: "SubFigure", maps: Maps) -> None:
    """Plot a row per layer with a map per head, each row of a map normalized by its maximum."""
    part.suptitle("attention weights of each position (row of a map), by layer and head", fontsize=10)
    for axes, (layer, each) in zip(part.subplots(len(maps), squeeze=False)[:, 0], maps.items(), strict=True):
        weights: Float[np.ndarray, "N T S"] = each[:, -SHOWN:, -SHOWN:].numpy()
        levels = weights / weights.max(2, keepdims=True)
        heads, _, seen = levels.shape
        gap = 1 + seen // 32
        apart = np.pad(levels, ((0, 0), (0, 0), (0, gap)), constant_values=np.nan)
        axes.imshow(np.hstack(list(apart))[:, :-gap], HEAT, vmin=0, vmax=1)
        axes.set_xticks(np.arange(heads) * (seen + gap) + (seen - 1) / 2, range(heads))
        axes.set_yticks([])
        axes.set_ylabel(layer.removeprefix("layers."), fontsize=8)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
