"""Quantize images, grey or colour, to a few levels per value, and convert levels back to images.

With two levels, values can be sampled instead of rounded: white with a probability equal to the brightness
(Salakhutdinov and Murray 2008, "On the Quantitative Analysis of Deep Belief Networks").

Legend: H rows, W columns, C channels (1 of grey, 3 of colour).
"""

from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.dataset.codecs.image import montage

WHITE = 255
MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
SHOWN = 84  # pixels of the shorter side of an image for viewing


def values(image: Image.Image, channels: int, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W C"]:
    """Return an image's values from 0 to 255.

    Args:
        image: image of any mode.
        channels: C.
        size: H and W to scale to, with box filtering (default: the size of the image).
    """
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image).reshape(image.height, image.width, channels)


def quantise(
    found: UInt8[np.ndarray, "H W C"], levels: int, chance: np.random.Generator | None = None
) -> UInt8[np.ndarray, "H W C"]:
    """Quantize values to levels of equal width.

    Args:
        found: values from 0 to 255.
        levels: number of levels.
        chance: generator to sample two levels with the values as probabilities; None rounds them.
    """
    if chance is None:
        return np.take(_level_of_values(levels), found)
    assert levels == 2
    return (chance.integers(0, WHITE, found.shape) < found).astype(np.uint8)


@cache
def _level_of_values(levels: int) -> UInt8[np.ndarray, " 256"]:
    return (np.arange(WHITE + 1) * levels // (WHITE + 1)).astype(np.uint8)


def image_of_levels(levels_of: UInt8[np.ndarray, "H W C"], levels: int) -> Image.Image:
    """Convert levels to an image, from black for level 0 to white for the last level."""
    height, width, channels = levels_of.shape
    bright = np.rint(levels_of * (WHITE / (levels - 1))).astype(np.uint8)
    return Image.fromarray(bright.reshape((height, width) if channels == 1 else levels_of.shape))


def album(images: list[Image.Image], columns: int) -> Image.Image:
    """Arrange images in a grid, enlarged for viewing."""
    times = max(1, round(SHOWN / min(images[0].size)))
    large = [image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST) for image in images]
    return montage(large, columns)
