"""Plots of attention: word against word, and heat maps over an image for each generated word.

Bahdanau, Cho and Bengio (2015), figure 3; Xu et al. (2015), "Show, Attend and Tell", figure 3.

Legend: T words, S words of the source, H rows and W columns of regions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.evaluation.plots.figure import DPI, blank, legible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 8  # panels per row
PANEL = 112  # side length of a panel in pixels
CAPTION, GAP = 24, 4  # pixels below and beside a panel
LETTER = 9  # mean width of a letter of a caption in pixels
CELL = 24  # side length of a cell in pixels
HEAT = "hot"  # colormap from black for zero over red and yellow to white for the maximum


def against(source: Sequence[str], words: Sequence[str], weights: Float[np.ndarray, "T S"]) -> "Figure":
    """Plot the attention of each target word (row) to each source word (column).

    Args:
        source: source words.
        words: target words.
        weights: attention weights of each target word.
    """
    figure = blank(CELL * len(source) / DPI, CELL * len(words) / DPI, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))  # The cells fill the axes, and the labels are outside.
    axes.imshow(weights, HEAT, aspect="auto", vmin=0)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(source)), [*map(legible, source)], rotation=90, parse_math=False)
    axes.set_yticks(range(len(words)), [*map(legible, words)], parse_math=False)
    return figure


def photograph(pixels: UInt8[np.ndarray, "3 S S"], words: Sequence[str], weights: Float[np.ndarray, "T P"]) -> "Figure":
    """Plot an image and the attention of each word over it.

    Args:
        pixels: the network's input.
        words: generated words.
        weights: attention of each word to each region of a square, row by row.
    """
    image = Image.fromarray(pixels.transpose(1, 2, 0)).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
    side = round(weights.shape[1] ** 0.5)
    return attention_panels(image, words, weights.reshape(-1, side, side), PANELS)


def attention_panels(
    image: Image.Image, words: Sequence[str], weights: Float[np.ndarray, "T H W"], columns: int
) -> "Figure":
    """Plot an image and the attention of each word over it, in a grid of panels.

    Args:
        image: the source image.
        words: generated words.
        weights: attention of each word to each region.
        columns: panels per row.
    """
    width, height = image.size
    columns, rows = min(columns, len(words) + 1), -(-(len(words) + 1) // columns)
    figure = blank(columns * (width + GAP) / DPI, rows * (height + CAPTION) / DPI, layout=None)
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0, "hspace": 0}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=edges).ravel()
    for axes in grid:
        axes.set(xlim=(0, width + GAP), ylim=(height + CAPTION, 0))
        axes.set_axis_off()
    grid[0].imshow(image, extent=(0, width, height, 0))
    for axes, word, shares in zip(grid[1:], words, weights, strict=False):
        axes.imshow(image.convert("L"), "gray", extent=(0, width, height, 0))
        axes.imshow(shares, HEAT, alpha=0.5, vmin=0, interpolation="bicubic", extent=(0, width, height, 0))
        text, room = legible(word), width // LETTER
        text = text if len(text) <= room else text[: room - 1] + "…"
        axes.text(width / 2, height + 3, text, ha="center", va="top", size=9, clip_on=True, parse_math=False)
    return figure
