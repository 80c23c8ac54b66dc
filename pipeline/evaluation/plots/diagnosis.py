"""A diagnosis drawn: the gradient against the lag, the loss against the position, how open gates are, and attention.

Legend: N heads, T positions, S positions looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from pipeline.evaluation.diagnosis import HIGH, LOW, Diagnosis, Maps
from pipeline.evaluation.plots.attention import HEAT
from pipeline.evaluation.plots.figure import blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.0, 3.2  # of a chart, in inches
LEGEND, BAR, MAP = 0.12, 0.22, 1.5  # inches of a name in the legend, of a gate's bar and of an attention map
SHOWN = 256  # last positions of an attention map
Points = Sequence[tuple[int | float, float]]


def diagnosis_picture(found: Mapping[str, Diagnosis], maps: Maps) -> "Figure":
    """Gradient and loss of all runs in one chart each; of a single one, its gates and attention below.

    Args:
        found: by the name of the run.
        maps: attention to draw, by layer.
    """
    gates, maps = (next(iter(found.values())).gates, maps) if len(found) == 1 else ({}, {})
    lines, bars, looks = 2 * HEIGHT + LEGEND * len(found), BAR * len(gates) + 0.9, MAP * len(maps) + 0.4
    heights = [lines, *([bars] if gates else []), *([looks] if maps else [])]
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
        _looks(parts[-1], maps)
    return figure


def chart(title: str, under: str, curves: Mapping[str, Points]) -> "Figure":
    """Lines over a common axis.

    Args:
        title: what is drawn.
        under: what the axis below counts.
        curves: points by the name of the line.
    """
    figure = blank(WIDTH, HEIGHT + LEGEND * len(curves))
    axes = figure.subplots()
    _lines(axes, title, under, curves)
    _name(figure, axes.lines, curves)
    return figure


def _lines(axes: Any, title: str, under: str, curves: Mapping[str, Points]) -> None:
    """Lines with a gap where a value is not finite, or not positive and drawn by its logarithm."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(under)
    axes.grid(color="0.9")
    for number, points in enumerate(curves.values()):
        x, y = np.array(points, float).reshape(-1, 2).T
        y = np.where((y > 0) | (axes.get_yscale() == "linear"), y, np.nan)
        dashes = ("-", "--", ":", "-.")[number // 10 % 4]  # the colours repeat after ten
        axes.plot(x, y, linestyle=dashes, marker=".", markersize=4, linewidth=1.3)  # a dot shows a value between gaps
    axes.xaxis.get_major_locator().set_params(integer=True)


def _name(part: Any, lines: Sequence[Any], names: Iterable[str]) -> None:
    """A legend of lines; none where the only one has no name."""
    if any(names):
        legend = part.legend(lines, [*names], loc="outside lower center", ncols=2, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _bars(part: Any, gates: Mapping[str, Mapping[str, float]]) -> None:
    """A bar for each gate: the share of its values that is nearly closed, then the others, then nearly open."""
    axes, rows = part.subplots(), range(len(gates))
    low, high = (np.array([shares[side] for shares in gates.values()]) for side in ("low", "high"))
    axes.barh(rows, low, color="#5a2d82", label=f"below {LOW}")
    axes.barh(rows, 1 - low - high, left=low, color="#dddddd", label="between")
    axes.barh(rows, high, left=1 - high, color="#e0a800", label=f"above {HIGH}")
    axes.set_yticks(rows, [*gates])
    axes.set(xlim=(0, 1), ylim=(len(gates) - 0.5, -0.5))
    axes.set_title("fraction of the values of each gate", fontsize=10)
    part.legend(loc="outside lower center", ncols=3, frameon=False)


def _looks(part: Any, maps: Maps) -> None:
    """A row for each layer and a map for each of its heads, each row of a map by its own largest weight."""
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
