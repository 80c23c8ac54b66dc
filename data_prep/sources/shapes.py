"""Drawings of coloured shapes with sentences that say what is where: images with captions, made on the spot.

caption   = thing | thing relation thing
thing     = "a" [size] colour shape
relation  = "left of" | "right of" | "above" | "below"
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from pipeline.dataset.codecs.image import encode_image

SIDE = 64  # pixels of a drawing
SMALL = 32  # of one that is to be drawn pixel by pixel
COLOURS = {"red": "#d62728", "green": "#2ca02c", "blue": "#1f5fd0", "yellow": "#f2c80f", "purple": "#8e3fc0"}
LIGHT = ("#ff9d9d", "#9dff9d", "#a8b8ff", "#fff29d")  # brighter than half: seen even in two levels of grey
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
        _draw(pen, thing, COLOURS[thing.colour])
    return encode_image(image), _captions(things)


def figures(count: int) -> Iterator[tuple[UInt8[np.ndarray, "32 32 3"], str]]:
    """So many small drawings of one shape each on black, the same each time, and what shape it is."""
    for number in range(count):
        chance = random.Random(number)
        largest = max(SIZES.values())
        x, y = (chance.randint(largest, SMALL - 1 - largest) for _ in range(2))
        thing = Thing("", chance.choice(SHAPES), chance.choice([*SIZES]), x, y)
        image = Image.new("RGB", (SMALL, SMALL))
        _draw(ImageDraw.Draw(image), thing, chance.choice(LIGHT))
        yield np.asarray(image), thing.shape


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


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, fill: str) -> None:
    x, y, half = thing.x, thing.y, SIZES[thing.size]
    box = x - half, y - half, x + half, y + half
    if thing.shape == "circle":
        pen.ellipse(box, fill)
    elif thing.shape == "square":
        pen.rectangle(box, fill)
    else:
        pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill)
