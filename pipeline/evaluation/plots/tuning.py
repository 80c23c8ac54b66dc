"""A plot of the loss against a tuned value, one line per number of training steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.evaluation.plots.figure import blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 6.0, 4.0  # inches


def loss_by_value(
    title: str, under: str, metric: str, curves: Mapping[str, Sequence[tuple[float, float]]], logarithmic: bool
) -> "Figure":
    """Plot lines of losses over values; a dot is a trial.

    Args:
        title: title of the plot.
        under: label of the x axis.
        metric: label of the y axis.
        curves: values and finite losses by the name of the line, in increasing order of values.
        logarithmic: whether the x axis is logarithmic.
    """
    figure = blank(WIDTH, HEIGHT)
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot([value for value, _ in points], [loss for _, loss in points], marker="o", label=name)
    axes.set_xscale("log" if logarithmic else "linear")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel(under, parse_math=False)
    axes.set_ylabel(metric, parse_math=False)
    axes.grid(color="0.9", which="both")
    axes.legend(frameon=False)
    return figure
