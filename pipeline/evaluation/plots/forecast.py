"""Forecasts drawn as SVG: what was read, what came, and what was said, with the band that it was said to lie in.

Legend: L steps of a context, H of a horizon.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

WIDTH, HEIGHT = 720, 200  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 30, 26  # its margins
CAME, SAID = "#333333", "#0067c0"
STYLE = "font-family='system-ui,sans-serif' font-size='12' fill='#333333'"


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


def drawing(panels: Sequence[Panel]) -> str:
    """One SVG of all panels, one below the other."""
    height = HEIGHT * len(panels) + 24
    parts = [_panel(panel, HEIGHT * number) for number, panel in enumerate(panels)]
    legend = "read and came: black; said: blue; its 10th to 90th percentile: light blue"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' "
        f"role='img'><title>Forecasts</title><rect width='100%' height='100%' fill='white'/>{''.join(parts)}"
        f"<text x='{LEFT}' y='{height - 8}' {STYLE}>{legend}</text></svg>\n"
    )


def _panel(panel: Panel, top: int) -> str:
    context, horizon = len(panel.context), len(panel.said)
    shown = [panel.context, panel.said, panel.low, panel.high, *([] if panel.came is None else [panel.came])]
    values = np.concatenate(shown)
    bottom, peak = _rounded(float(np.nanmin(values)), float(np.nanmax(values)))

    def x(step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(context + horizon - 1, 1)

    def y(value: Any) -> float:
        return top + HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (float(value) - bottom) / (peak - bottom)

    def points(first: int, line: Iterable[Any]) -> str:
        return " ".join(f"{x(first + at):.1f},{y(value):.1f}" for at, value in enumerate(line) if np.isfinite(value))

    def line(first: int, values: Iterable[Any], colour: str) -> str:
        return f"<polyline points='{points(first, values)}' fill='none' stroke='{colour}' stroke-width='1.5'/>"

    back = reversed([f"{x(context + at):.1f},{y(value):.1f}" for at, value in enumerate(panel.low)])
    band = f"<polygon points='{points(context, panel.high)} {' '.join(back)}' fill='{SAID}' fill-opacity='0.2'/>"
    axis = [_tick(y(value), value) for value in np.linspace(bottom, peak, 3).tolist()]
    under = top + HEIGHT - 8
    places = ((x(0), "start"), (x(context), "middle"), (WIDTH - RIGHT, "end"))
    stamps = [
        f"<text x='{at:.1f}' y='{under}' text-anchor='{anchor}' {STYLE}>{escape(stamp)}</text>"
        for (at, anchor), stamp in zip(places, panel.stamps, strict=True)
    ]
    came = "" if panel.came is None else line(context, panel.came, CAME)
    foot = top + HEIGHT - BOTTOM
    now = f"<line x1='{x(context)}' x2='{x(context)}' y1='{top + TOP}' y2='{foot}' stroke='#bbbbbb'/>"
    lines = f"{band}{line(0, panel.context, CAME)}{came}{line(context, panel.said, SAID)}"
    title = f"<text x='{LEFT}' y='{top + 18}' font-weight='bold' {STYLE}>{escape(panel.title)}</text>"
    return "".join([title, *axis, now, lines, *stamps])


def _tick(height: float, value: float) -> str:
    return (
        f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{height:.1f}' y2='{height:.1f}' stroke='#dddddd'/>"
        f"<text x='{LEFT - 6}' y='{height + 4:.1f}' text-anchor='end' {STYLE}>{value:.4g}</text>"
    )


def _rounded(low: float, high: float) -> tuple[float, float]:
    """Round numbers around a range."""
    size = max(high - low, 1e-9 * max(abs(low), abs(high), 1.0))
    unit = float(10.0 ** np.floor(np.log10(size)) / 2)
    bottom, peak = float(np.floor(low / unit) * unit), float(np.ceil(high / unit) * unit)
    return bottom, peak if peak > bottom else bottom + unit
