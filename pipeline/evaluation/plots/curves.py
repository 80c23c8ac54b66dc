"""Curves as SVG, drawn without any library, so that a page shows them without scripts.

The page's script redraws the chart with other axes; both use the thinned points of this module.
"""

import math
from collections.abc import Callable
from html import escape
from typing import NamedTuple

from pipeline.runs.journal import MetricSeries

WIDTH, HEIGHT = 720, 320  # units of the view box
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 14, 40  # margins for the labels
POINTS = 600  # maximum number of points of a curve
COLOURS, DASHES = 6, 5  # styles of the page's sheet, which distinguish 30 curves


class Band(NamedTuple):
    """The uncertainty of a curve: lower and upper bounds of its values."""

    low: list[float]
    high: list[float]


class Curve(NamedTuple):
    """One run, or the mean of several, in a chart; `style` selects color and dashes. FLOPs are unknown if None."""

    name: str
    style: int
    series: MetricSeries
    band: Band | None = None
    flops_per_token: float | None = None


class Chart(NamedTuple):
    """One quantity of several runs; `reference` is a level to compare with, such as the baseline's."""

    key: str
    title: str
    unit: str
    logarithmic: bool
    curves: list[Curve]
    reference: tuple[str, float] | None = None


class Axis(NamedTuple):
    """Maps the values [low, high] to positions [start, stop]."""

    low: int | float
    high: int | float
    start: float
    stop: float
    logarithmic: bool = False

    def place(self, value: int | float) -> float:
        """Return the position of a value."""
        low, high, value = (scaled(one, self.logarithmic) for one in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def scaled(value: int | float, logarithmic: bool) -> int | float:
    """Return the value, or its logarithm."""
    return math.log(value) if logarithmic else value


def thinned(curve: Curve, points: int = POINTS) -> Curve:
    """Return a curve of about `points` points: the minimum and maximum of each interval, so that spikes are kept."""
    series = curve.series
    if len(series.values) <= points:
        return curve
    stretch = math.ceil(2 * len(series.values) / (points - 2))
    kept = {0, len(series.values) - 1}
    for start in range(0, len(series.values), stretch):
        finite = [i for i in range(start, min(start + stretch, len(series.values))) if is_drawn(series.values[i])]
        if finite:
            kept |= {min(finite, key=series.values.__getitem__), max(finite, key=series.values.__getitem__)}
    order = sorted(kept)
    band = None if curve.band is None else Band(*([column[i] for i in order] for column in curve.band))
    steps, tokens = ([column[i] for i in order] for column in (series.steps, series.tokens))
    seconds, values = ([column[i] for i in order] for column in (series.seconds, series.values))
    return curve._replace(series=MetricSeries(steps, tokens, seconds, values), band=band)


def is_drawn(value: int | float, logarithmic: bool = False) -> bool:
    """Return whether a value can be drawn in the chart."""
    return math.isfinite(value) and (value > 0 or not logarithmic)


def svg(chart: Chart, number: str) -> str:
    """Return the chart by optimizer steps as an `svg` element whose ids end in `number`."""
    x, y = axes(chart)
    title, desc = f"title-{number}", f"desc-{number}"
    parts = [
        f'<svg class="still" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{title} {desc}">',
        f'<title id="{title}">{escape(chart.title)}</title>',
        f'<desc id="{desc}">{escape(description(chart))}</desc>',
        *grid(x, y),
    ]
    if chart.reference is not None:
        level = y.place(chart.reference[1])
        parts.append(f'<path class="reference" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
    for curve in chart.curves:
        if curve.band is not None:
            parts.append(f'<path class="band f{curve.style % COLOURS}" d="{area(curve, x, y)}"/>')
    for curve in chart.curves:
        drawn = f"k{curve.style % COLOURS} d{curve.style % DASHES}"
        parts.append(f'<path class="curve {drawn}" d="{path(curve.series, x, y)}"/>')
    return "\n".join([*parts, "</svg>"])


def axes(chart: Chart) -> tuple[Axis, Axis]:
    """Return axes that contain all curves, their bands and the reference."""
    steps = [step for curve in chart.curves for step in curve.series.steps]
    columns = [column for curve in chart.curves for column in (curve.series.values, *(curve.band or ()))]
    values = [value for column in columns for value in column if is_drawn(value, chart.logarithmic)]
    values += [chart.reference[1]] if chart.reference else []
    x = Axis(0, max(steps, default=0) or 1, LEFT, WIDTH - RIGHT)
    low, high = min(values, default=1.0), max(values, default=1.0)
    if chart.logarithmic:
        room = max((high / low) ** 0.04, 1.001)
        return x, Axis(low / room, high * room, HEIGHT - BOTTOM, TOP, True)
    room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return x, Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)


def grid(x: Axis, y: Axis) -> list[str]:
    """Return lines and labels of both axes."""
    right, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(y, 6):
        place = y.place(value)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{right}"/>')
        parts.append(f'<text class="y" x="{LEFT - 8}" y="{place + 4:.1f}">{label(value)}</text>')
    for value in ticks(x, 6):
        place = x.place(value)
        parts.append(f'<path class="grid" d="M{place:.1f} {TOP}V{foot}"/>')
        parts.append(f'<text class="x" x="{place:.1f}" y="{foot + 18}">{label(value)}</text>')
    parts.append(f'<text class="name" x="{right}" y="{HEIGHT - 4}">optimizer steps</text>')
    return parts


def ticks(axis: Axis, count: int) -> list[float]:
    """Return about `count` round values between the ends of an axis."""
    if axis.logarithmic and axis.high / axis.low > 10:
        return decades(axis.low, axis.high)
    raw = (axis.high - axis.low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(m for m in (1, 2, 5, 10) if m * size >= raw * 0.999)
    first, last = math.ceil(axis.low / step), math.floor(axis.high / step)
    return [round(k * step, 12) for k in range(first, last + 1)]


def decades(low: int | float, high: int | float) -> list[float]:
    """Return round multiples of the powers of ten, at most about eight."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low <= value <= high]
        if len(inside) <= 8:
            break
    return inside


def label(value: int | float) -> str:
    """Return a short number for an axis, such as 20k or 1.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def path(series: MetricSeries, x: Axis, y: Axis) -> str:
    """Return the line through all drawable points; other points break the line."""
    pieces, pen = [], "M"
    for step, value in zip(series.steps, series.values, strict=True):
        if not is_drawn(value, y.logarithmic):
            pen = "M"
            continue
        pieces.append(f"{pen}{x.place(step):.1f} {y.place(value):.1f}")
        if pen == "M":
            pieces.append("h0")  # makes an isolated point visible with round caps
        pen = "L"
    return "".join(pieces)


def area(curve: Curve, x: Axis, y: Axis) -> str:
    """Return the outline of a curve's band, clipped to the axis."""
    assert curve.band is not None
    rows = [row for row in zip(curve.series.steps, *curve.band, strict=True) if all(map(math.isfinite, row))]
    above = [(step, high) for step, _, high in rows]
    below = [(step, low) for step, low, _ in reversed(rows)]
    inside = [(step, min(max(value, y.low), y.high)) for step, value in above + below]
    return "M" + "L".join(f"{x.place(step):.1f} {y.place(value):.1f}" for step, value in inside) + "Z" if inside else ""


def description(chart: Chart) -> str:
    """Return a description of the curves in words."""
    parts = []
    for curve in chart.curves:
        values = [value for value in curve.series.values if math.isfinite(value)]
        if values:
            ends: Callable[[float], str] = "{:.4g}".format
            parts.append(
                f"{curve.name} goes from {ends(values[0])} to {ends(values[-1])} "
                f"in {curve.series.steps[-1]:,} steps, at best {ends(min(values))}"
            )
            if curve.band is not None:
                parts[-1] += f", in the end between {ends(curve.band.low[-1])} and {ends(curve.band.high[-1])}"
    if chart.reference is not None:
        parts.append(f"{chart.reference[0]} is at {chart.reference[1]:.4g}")
    return f"{chart.title}, {chart.unit}: {'; '.join(parts)}."
