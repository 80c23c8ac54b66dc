"""A diagnosis drawn: the gradient against the lag, the loss against the position, how open gates are, and attention.

Legend: N heads, T positions, S positions looked at.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from pipeline.dataset.codecs.image import montage
from pipeline.evaluation.diagnosis import HIGH, LOW, Diagnosis, Maps
from pipeline.evaluation.plots.attention import captioned, colours, label, lettering
from pipeline.evaluation.plots.curves import Axis, is_drawn, ticks
from pipeline.evaluation.plots.curves import label as number

WIDTH, HEIGHT = 560, 300  # of a chart, in pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 30, 40  # its margins
COLOURS = ("#0067c0", "#d62728", "#2ca02c", "#8e3fc0", "#b06d00", "#007c89", "#777777", "#333333")
BAR, CLOSED, OPEN = 16, "#5a2d82", "#e0a800"  # of gates
SHOWN = 256  # last positions of an attention map
MAP = 132  # pixels of its side
MARKS = 8  # of an axis, at most
Points = Sequence[tuple[int | float, float]]


def picture(found: Mapping[str, Diagnosis], maps: Maps) -> Image.Image:
    """Gradient and loss of all runs in one chart each; of a single one, its gates and attention below.

    Args:
        found: by the name of the run.
        maps: attention to draw, by layer.
    """
    gradients = {name: list(enumerate(one.gradient)) for name, one in found.items()}
    losses = {
        name: [(place, value) for place, value in enumerate(one.loss) if value is not None]
        for name, one in found.items()
    }
    panels = [
        chart("norm of the gradient of a loss by the input k positions back", "k", gradients, logarithmic=True),
        chart("loss by position", "position", losses),
    ]
    if len(found) == 1:
        [one] = found.values()
        panels += ([bars(one.gates)] if one.gates else []) + looked(maps)
    whole = Image.new("RGB", (max(each.width for each in panels), sum(each.height for each in panels)), "white")
    top = 0
    for panel in panels:
        whole.paste(panel, (0, top))
        top += panel.height
    return whole


def looked(maps: Maps) -> list[Image.Image]:
    """A title and a map for each head of each layer; nothing where there are none."""
    heads = [
        captioned(heat_map(weights), f"{layer} {head}".removeprefix("layers."))
        for layer, each in maps.items()
        for head, weights in enumerate(each[:, -SHOWN:, -SHOWN:].numpy())
    ]
    title = "where each position (row) looks, by layer and head"
    return [label(title), montage(heads, WIDTH // MAP)] if heads else []


def chart(title: str, under: str, curves: Mapping[str, Points], logarithmic: bool = False) -> Image.Image:
    """Lines over a common axis; a value that has no place leaves a gap.

    Args:
        title: what is drawn.
        under: what the axis below counts.
        curves: points by the name of the line.
        logarithmic: draw values by their logarithm.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, (font, _) = ImageDraw.Draw(image), lettering("", 12)
    points = [each for line in curves.values() for each in line if is_drawn(each[1], logarithmic)]
    pen.text((LEFT, 6), title, "black", lettering("", 14)[0])
    if not points:
        return image
    low, high = min(value for _, value in points), max(value for _, value in points)
    if low == high:
        low, high = (low / 2, 2 * high) if logarithmic else (low - 0.5, high + 0.5)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP, logarithmic)
    places = [0, *(place for place, _ in points)]
    x = Axis(min(places), max(max(places), min(places) + 1), LEFT, WIDTH - RIGHT)
    marks = ticks(y, 5)
    for value in marks[:: -(-len(marks) // MARKS)]:
        pen.line([(LEFT, y.place(value)), (WIDTH - RIGHT, y.place(value))], "#dddddd")
        pen.text((LEFT - 6, y.place(value)), number(value), "black", font, anchor="rm")
    for value in ticks(x, 6):
        pen.text((x.place(value), HEIGHT - BOTTOM + 4), number(value), "black", font, anchor="ma")
    pen.text((WIDTH - RIGHT, HEIGHT - 4), under, "black", font, anchor="rs")
    at = float(LEFT)
    for (name, line), colour in zip(curves.items(), COLOURS * len(curves), strict=False):
        for piece in pieces(line, logarithmic):
            pen.line([(x.place(place), y.place(value)) for place, value in piece], colour, 2)
        pen.text((at, HEIGHT - 4), name, colour, font, anchor="ls")
        at += font.getlength(name) + 14
    return image


def pieces(line: Points, logarithmic: bool) -> list[list[tuple[int | float, float]]]:
    """A line cut where a value has no place; a point that stands alone becomes a short line."""
    found: list[list[tuple[int | float, float]]] = [[]]
    for place, value in line:
        if is_drawn(value, logarithmic):
            found[-1].append((place, value))
        elif found[-1]:
            found.append([])
    return [piece if len(piece) > 1 else [piece[0], (piece[0][0] + 0.3, piece[0][1])] for piece in found if piece]


def bars(gates: Mapping[str, Mapping[str, float]]) -> Image.Image:
    """A bar for each gate: the share of its values that is nearly closed, then the others, then nearly open."""
    left = 16 + max(label(name, 12).width for name in gates)
    image = Image.new("RGB", (WIDTH, TOP + BAR * len(gates) + 8), "white")
    pen = ImageDraw.Draw(image)
    said = f"gates: below {LOW} (violet), above {HIGH} (yellow), between"
    pen.text((LEFT, 6), said, "black", lettering("", 14)[0])
    length = WIDTH - RIGHT - left
    for row, (name, shares) in enumerate(gates.items()):
        top = TOP + BAR * row
        pen.text((left - 6, top + BAR / 2), name, "black", lettering("", 12)[0], anchor="rm")
        pen.rectangle([left, top + 1, left + length, top + BAR - 2], "#dddddd")
        parts = [(0.0, shares["low"], CLOSED), (1 - shares["high"], 1.0, OPEN)]
        for first, last, colour in (part for part in parts if part[1] > part[0]):
            pen.rectangle([left + first * length, top + 1, left + last * length, top + BAR - 2], colour)
    return image


def heat_map(weights: Float[np.ndarray, "T S"]) -> Image.Image:
    """An attention map, each row by its own largest weight."""
    level = weights / weights.max(1, keepdims=True)
    side = MAP - 8
    return Image.fromarray(colours(level)).resize((side, side), Image.Resampling.BOX)
