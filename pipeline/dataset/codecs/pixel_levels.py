"""An image becomes levels and back: grey or colour, scaled, every value quantised to a few levels, row by row.

With two levels a value can be drawn instead of rounded: it is white with a probability of its own brightness
(Salakhutdinov and Murray 2008, "On the Quantitative Analysis of Deep Belief Networks").

Legend: H rows, W columns, C channels (1 of grey, 3 of colour).
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipeline.dataset.codecs.image import montage

WHITE = 255
MODES = {1: "L", 3: "RGB"}  # of Pillow, by channels
SHOWN = 84  # pixels of the shorter side of an image that people look at


def values(image: Image.Image, channels: int, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W C"]:
    """An image's values from 0 to 255.

    Args:
        image: of any mode.
        channels: C.
        size: H and W to scale it to: each value is then the mean of those that fall on it.
    """
    image = image.convert(MODES[channels])
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(image).reshape(image.height, image.width, channels)


def quantise(
    found: UInt8[np.ndarray, "H W C"], levels: int, chance: np.random.Generator | None = None
) -> UInt8[np.ndarray, "H W C"]:
    """The level of each value, of levels of equal width.

    Args:
        found: values from 0 to 255.
        levels: how many.
        chance: draws white with a probability of the value, where there are two levels.
    """
    if chance is None:
        return (found.astype(np.uint16) * levels // (WHITE + 1)).astype(np.uint8)
    assert levels == 2
    return (chance.integers(0, WHITE, found.shape) < found).astype(np.uint8)


def image_of_levels(levels_of: UInt8[np.ndarray, "H W C"], levels: int) -> Image.Image:
    """The image that the levels stand for, from black for level 0 to white for the last."""
    height, width, channels = levels_of.shape
    bright = np.rint(levels_of * (WHITE / (levels - 1))).astype(np.uint8)
    return Image.fromarray(bright.reshape((height, width) if channels == 1 else levels_of.shape))


def album(images: list[Image.Image], columns: int) -> Image.Image:
    """Images side by side, so many in a row, large enough to be looked at."""
    times = max(1, round(SHOWN / min(images[0].size)))
    large = [image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST) for image in images]
    return montage(large, columns)
