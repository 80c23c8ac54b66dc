"""Drawings of coloured shapes with sentences that say what is where: images with captions, made on the spot.

caption   = thing | thing relation thing
thing     = "a" [size] colour shape
relation  = "left of" | "right of" | "above" | "below"
"""

import random
from typing import NamedTuple

from PIL import Image, ImageDraw

from pipeline.images import encode

SIDE = 64  # pixels of a drawing
COLOURS = {"red": "#d62728", "green": "#2ca02c", "blue": "#1f5fd0", "yellow": "#f2c80f", "purple": "#8e3fc0"}
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 7, "large": 13}  # pixels from the middle to the edge


class Thing(NamedTuple):
    """A shape on a drawing, its middle at (x, y)."""

    colour: str
    shape: str
    size: str
    x: int
    y: int

    def said(self, fully: bool) -> str:
        """What it is called, with or without its size."""
        return f"a {self.size} {self.colour} {self.shape}" if fully else f"a {self.colour} {self.shape}"


def drawn(number: int) -> tuple[bytes, list[str]]:
    """Drawing `number`, the same each time, as a JPEG file, and its captions."""
    chance = random.Random(number)
    things = _things(chance)
    image = Image.new("RGB", (SIDE, SIDE), chance.choice(("white", "#e8e8e8", "#dfe9f5")))
    pen = ImageDraw.Draw(image)
    for thing in things:
        _draw(pen, thing)
    return encode(image), _captions(things)


def _things(chance: random.Random) -> list[Thing]:
    """One thing in the middle, or two that lie side by side or one above the other."""
    names = [(chance.choice([*COLOURS]), chance.choice(SHAPES), chance.choice([*SIZES])) for _ in range(2)]
    near, far = SIDE // 4, 3 * SIDE // 4

    def about(middle: int) -> int:
        return middle + chance.randint(-2, 2)

    if chance.random() < 0.25:
        return [Thing(*names[0], about(SIDE // 2), about(SIDE // 2))]
    if chance.random() < 0.5:
        return [Thing(*name, about(x), about(SIDE // 2)) for name, x in zip(names, (near, far), strict=True)]
    return [Thing(*name, about(SIDE // 2), about(y)) for name, y in zip(names, (near, far), strict=True)]


def _captions(things: list[Thing]) -> list[str]:
    if len(things) == 1:
        return [thing.said(fully) for thing in things for fully in (False, True)]
    first, second = things
    there, back = ("left of", "right of") if second.x - first.x > SIDE // 4 else ("above", "below")
    return [
        f"{one.said(fully)} {relation} {other.said(fully)}"
        for fully in (False, True)
        for one, relation, other in ((first, there, second), (second, back, first))
    ]


def _draw(pen: ImageDraw.ImageDraw, thing: Thing) -> None:
    x, y, half = thing.x, thing.y, SIZES[thing.size]
    box, fill = (x - half, y - half, x + half, y + half), COLOURS[thing.colour]
    if thing.shape == "circle":
        pen.ellipse(box, fill)
    elif thing.shape == "square":
        pen.rectangle(box, fill)
    else:
        pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill)
