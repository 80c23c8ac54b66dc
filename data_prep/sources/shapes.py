"""Generated images with captions: coloured shapes, and sentences that describe their positions.

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

SIDE = 64  # pixels; size of a captioned drawing
SMALL = 32  # pixels; size of a drawing that is modelled pixel by pixel
COLOURS = {"red": "#d62728", "green": "#2ca02c", "blue": "#1f5fd0", "yellow": "#f2c80f", "purple": "#8e3fc0"}
LIGHT = ("#ff9d9d", "#9dff9d", "#a8b8ff", "#fff29d")  # above half brightness, so visible with two levels of grey
SHAPES = ("circle", "square", "triangle")
SIZES = {"small": 7, "large": 13}  # pixels from the center to the edge


class Thing(NamedTuple):
    """A shape in a drawing, with its center at (x, y)."""

    colour: str
    shape: str
    size: str
    x: int
    y: int

    def phrase(self, with_size: bool) -> str:
        """Return the noun phrase for the shape, with or without its size."""
        return f"a {self.size} {self.colour} {self.shape}" if with_size else f"a {self.colour} {self.shape}"


def drawn(number: int) -> tuple[bytes, list[str]]:
    """Return drawing `number` as a JPEG file, and its captions; equal numbers give equal drawings."""
    rng = random.Random(number)
    things = _things(rng)
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(("white", "#e8e8e8", "#dfe9f5")))
    pen = ImageDraw.Draw(image)
    for thing in things:
        _draw(pen, thing, COLOURS[thing.colour])
    return encode_image(image), _captions(things)


def figures(count: int) -> Iterator[tuple[UInt8[np.ndarray, "32 32 3"], str]]:
    """Yield `count` small drawings of one shape on black, each with the name of the shape; always the same ones."""
    for number in range(count):
        rng = random.Random(number)
        largest = max(SIZES.values())
        x, y = (rng.randint(largest, SMALL - 1 - largest) for _ in range(2))
        thing = Thing("", rng.choice(SHAPES), rng.choice([*SIZES]), x, y)
        image = Image.new("RGB", (SMALL, SMALL))
        _draw(ImageDraw.Draw(image), thing, rng.choice(LIGHT))
        yield np.asarray(image), thing.shape


def _things(rng: random.Random) -> list[Thing]:
    """Draw one shape in the center, or two shapes beside or above each other."""
    names = [(rng.choice([*COLOURS]), rng.choice(SHAPES), rng.choice([*SIZES])) for _ in range(2)]
    near, far = SIDE // 4, 3 * SIDE // 4

    def about(center: int) -> int:
        return center + rng.randint(-2, 2)

    if rng.random() < 0.25:
        return [Thing(*names[0], about(SIDE // 2), about(SIDE // 2))]
    if rng.random() < 0.5:
        return [Thing(*name, about(x), about(SIDE // 2)) for name, x in zip(names, (near, far), strict=True)]
    return [Thing(*name, about(SIDE // 2), about(y)) for name, y in zip(names, (near, far), strict=True)]


def _captions(things: list[Thing]) -> list[str]:
    if len(things) == 1:
        return [thing.phrase(with_size) for thing in things for with_size in (False, True)]
    first, second = things
    there, back = ("left of", "right of") if second.x - first.x > SIDE // 4 else ("above", "below")
    return [
        f"{one.phrase(with_size)} {relation} {other.phrase(with_size)}"
        for with_size in (False, True)
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
