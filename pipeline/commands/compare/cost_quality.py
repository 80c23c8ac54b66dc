"""Charts of cost against quality: one point per run, cheaper to the left, better at the bottom."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from pipeline.commands.compare.columns import duration, short_number
from pipeline.commands.compare.rows import Entry, Group
from pipeline.evaluation.plots.curves import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, label, ticks

LINE = 24  # minimum vertical distance between two names
APART = 1.1  # minimum ratio of largest and smallest cost for a chart
TICK = 120  # minimum distance between two tick labels
WORD = 11  # maximum width of a letter


class Cost(NamedTuple):
    """A kind of cost, as an axis."""

    key: str
    title: str
    show: Callable[[float], str]


class Point(NamedTuple):
    """One run in the chart; `style` is the style of its curves."""

    entry: Entry
    style: int
    cost: float
    quality: float
    half: float
    """Half the confidence interval of the quality; 0 if there is none."""


COSTS = (
    Cost("seconds", "Training time", duration),
    Cost("flops", "Training FLOPs", short_number),
)


def charts(group: Group, number: int) -> list[str]:
    """Return a figure for each kind of cost in which the runs differ."""
    key, unit = ("bits_per_byte", "bits per byte") if group.horizon is None else ("mse", "MSE")
    figures = []
    for cost in COSTS:
        points = [
            Point(entry, style, float(price), float(quality), entry.spread.get(key, 0.0))
            for style, entry in enumerate(group.entries)
            if (price := getattr(entry, cost.key)) and math.isfinite(quality := getattr(entry, key) or math.nan)
        ]
        prices = [point.cost for point in points]
        if prices and max(prices) > APART * min(prices):
            level = None if group.baseline is None else getattr(group.baseline, key)
            reference = None if group.baseline is None or level is None else (group.baseline.name, float(level))
            figures.append(_figure(cost, unit, points, reference, f"{number}-{cost.key}"))
    return figures


def _figure(cost: Cost, unit: str, points: Sequence[Point], reference: tuple[str, float] | None, number: str) -> str:
    title, desc = f"cost-{number}", f"cost-desc-{number}"
    described = [f"{p.entry.name} {p.quality:.4g} after {cost.show(p.cost)}" for p in points]
    described += [f"{reference[0]} {reference[1]:.4g}"] if reference else []
    return (
        f'<figure class="plot">\n<figcaption><b>{cost.title} against quality</b> '
        f"<span>validation {unit}</span></figcaption>\n"
        f'<svg class="still" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{title} {desc}">'
        f'<title id="{title}">{cost.title} against validation {unit}</title>'
        f'<desc id="{desc}">{escape("; ".join(described))}.</desc>\n'
        + "\n".join(_drawn(cost, points, reference))
        + "</svg>\n</figure>"
    )


def _drawn(cost: Cost, points: Sequence[Point], reference: tuple[str, float] | None) -> list[str]:
    x, y = _axes(points, reference)
    right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(y, 6):
        parts.append(f'<path class="grid" d="M{LEFT} {y.place(value):.1f}H{right}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{y.place(value) + 4:.1f}">{label(value)}</text>')
    for value in _apart(ticks(x, 4), x):
        parts.append(f'<path class="grid" d="M{x.place(value):.1f} {TOP}V{foot}"/>')
        parts.append(f'<text class="x" x="{x.place(value):.1f}" y="{foot + 18}">{escape(cost.show(value))}</text>')
    parts.append(f'<text class="name" x="{right}" y="{HEIGHT - 4}">{cost.title}</text>')
    if reference is not None:
        parts.append(f'<path class="reference" d="M{LEFT} {y.place(reference[1]):.1f}H{right}"/>')
    for point in points:
        across, up = x.place(point.cost), y.place(point.quality)
        low, high = y.place(point.quality - point.half), y.place(point.quality + point.half)
        colour = point.style % COLOURS
        parts.append(f'<path class="curve k{colour}" d="M{across:.1f} {low:.1f}V{high:.1f}"/>')
        parts.append(f'<circle class="dot f{colour}" r="7" cx="{across:.1f}" cy="{up:.1f}"/>')
    return parts + _names(points, x, y)


def _apart(values: Sequence[float], axis: Axis) -> list[float]:
    """Return the increasing values whose labels do not overlap."""
    kept: list[float] = []
    for value in values:
        if not kept or axis.place(value) - axis.place(kept[-1]) >= TICK:
            kept.append(value)
    return kept


def _axes(points: Sequence[Point], reference: tuple[str, float] | None) -> tuple[Axis, Axis]:
    costs = [point.cost for point in points]
    values = [value for p in points for value in (p.quality - p.half, p.quality + p.half)]
    values += [reference[1]] if reference else []
    room, space = (max(costs) / min(costs)) ** 0.1, (max(values) - min(values)) * 0.08 or 0.1
    return (
        Axis(min(costs) / room, max(costs) * room, LEFT, WIDTH - RIGHT, logarithmic=True),
        Axis(min(values) - space, max(values) + space, HEIGHT - BOTTOM, TOP),
    )


def _names(points: Sequence[Point], x: Axis, y: Axis) -> list[str]:
    """Return the names of the points, placed without overlap."""
    taken: list[tuple[float, float, float]] = []
    parts = []

    def is_free(left: float, right: float, up: float) -> bool:
        inside = TOP + LINE / 2 < up < HEIGHT - BOTTOM
        return inside and not any(abs(up - other) < LINE and left < b and a < right for a, b, other in taken)

    for point in sorted(points, key=lambda p: p.quality):
        across, level = x.place(point.cost), y.place(point.quality) + 5
        width = WORD * len(point.entry.name)
        left = across + 13 if across + 13 + width < WIDTH else across - 13 - width
        tried = sorted((level + 2 * step for step in range(-HEIGHT // 2, HEIGHT // 2)), key=lambda up: abs(up - level))
        up = next((up for up in tried if is_free(left, left + width, up)), level)
        taken.append((left, left + width, up))
        anchor, at = ("start", across + 13) if left > across else ("end", across - 13)
        parts.append(f'<text x="{at:.1f}" y="{up:.1f}" style="text-anchor:{anchor}">{escape(point.entry.name)}</text>')
    return parts
