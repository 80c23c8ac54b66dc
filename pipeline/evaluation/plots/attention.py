"""Attention drawn as pictures: word against word, and heat over a photograph for each word that was written of it.

Bahdanau, Cho and Bengio (2015), figure 3; Xu et al. (2015), "Show, Attend and Tell", figure 3.

Legend: T words, S words of the source, H rows and W columns of regions.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from pipeline.dataset.codecs.image import MARGIN, montage

PANELS = 8  # in a row
PANEL = 112  # pixels of a side
CELL = 24  # pixels of a word against a word


def label(text: str, size: int = 14) -> Image.Image:
    """A text in black on white, just as large as it needs."""
    font, text = lettering(text, size)
    width, height = font.getlength(text), sum(font.getmetrics())  # as high for all texts
    image = Image.new("RGB", (round(width) + 2 * MARGIN, height + 2 * MARGIN), "white")
    ImageDraw.Draw(image).text((MARGIN, MARGIN), text, "black", font)
    return image


def lettering(text: str, size: int) -> tuple[Any, str]:
    """A font that has letters of most languages, or Pillow's own and the text in ASCII, which is all that it has."""
    for name in ("DejaVuSans.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, size), text
        except OSError:  # not on this machine
            continue
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return ImageFont.load_default(size), plain or ("?" if text else "")


def colours(shares: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """From black for nothing over red and yellow to white for the largest."""
    level = 3 * shares[..., None] / max(float(shares.max()), 1e-12)
    return np.rint(255 * np.clip(level - np.arange(3), 0, 1)).astype(np.uint8)


def against(source: Sequence[str], words: Sequence[str], looks: Float[np.ndarray, "T S"]) -> Image.Image:
    """A row for each word that was written, with the share that it gave to each word of the source.

    Args:
        source: the words that were read.
        words: the words that were written.
        looks: the attention of each written word to each that was read.
    """
    rows, columns = [label(word) for word in words], [label(word).rotate(90, expand=True) for word in source]
    left, top = max(row.width for row in rows), max(column.height for column in columns)
    whole = Image.new("RGB", (left + CELL * len(columns), top + CELL * len(rows)), "white")
    for at, row in enumerate(rows):
        whole.paste(row, (left - row.width, top + CELL * at + (CELL - row.height) // 2))
    for at, column in enumerate(columns):
        whole.paste(column, (left + CELL * at + (CELL - column.width) // 2, top - column.height))
    cells = Image.fromarray(colours(looks)).resize((CELL * len(columns), CELL * len(rows)), Image.Resampling.NEAREST)
    whole.paste(cells, (left, top))
    return whole


def heat(image: Image.Image, shares: Float[np.ndarray, "H W"]) -> Image.Image:
    """An image whose regions glow by their shares of the attention."""
    glow = Image.fromarray(colours(shares)).resize(image.size, Image.Resampling.BICUBIC)
    return Image.blend(image.convert("L").convert("RGB"), glow, 0.5)


def photograph(
    pixels: UInt8[np.ndarray, "3 S S"], words: Sequence[str], looks: Float[np.ndarray, "T P"]
) -> Image.Image:
    """A photograph, and beside it where each word looked.

    Args:
        pixels: what the network saw.
        words: what it wrote.
        looks: the attention of each word to each region, row by row of a square of regions.
    """
    image = Image.fromarray(pixels.transpose(1, 2, 0)).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
    side = round(looks.shape[1] ** 0.5)
    return panels(image, words, looks.reshape(-1, side, side), PANELS)


def panels(image: Image.Image, words: Sequence[str], looks: Float[np.ndarray, "T H W"], columns: int) -> Image.Image:
    """An image, and beside it where each word looked.

    Args:
        image: what was looked at.
        words: what was written.
        looks: the attention of each word to each region.
        columns: how many stand in a row.
    """
    shown = [image, *(heat(image, each) for each in looks)]
    return montage([captioned(panel, word) for panel, word in zip(shown, ["", *words], strict=True)], columns)


def captioned(image: Image.Image, text: str) -> Image.Image:
    """An image above a text, cut where it is wider than the image."""
    below = label(text)
    both = Image.new("RGB", (image.width, image.height + below.height), "white")
    both.paste(image, (0, 0))
    both.paste(below, (max(0, (image.width - below.width) // 2), image.height))
    return both
