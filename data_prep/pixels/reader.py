"""Read, scale and quantize images in worker processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_prep.pixels.sources import Found
from pipeline.dataset.codecs.image import ImageError, content, decode_image
from pipeline.dataset.codecs.pixel_levels import quantise, values


class Pixels(NamedTuple):
    """The quantized pixels of an image."""

    size: tuple[int, int]
    levels: bytes
    digest: bytes
    """Hash of the image before scaling."""


@dataclass(frozen=True)
class PixelReader:
    """Reads, scales and quantizes images in a worker process.

    Args:
        size: rows and columns to scale to; None keeps the size.
        channels: 1 for grey or 3 for colour.
        levels: number of quantization levels.
        seed: random seed of sampled levels; None rounds instead.
    """

    size: tuple[int, int] | None
    channels: int
    levels: int
    seed: int | None

    def __call__(self, batch: Sequence[Found]) -> list[Pixels | ImageError]:
        """Return the pixels of each image, or the reason why it is invalid."""
        return [self._read(found) for found in batch]

    def _read(self, found: Found) -> Pixels | ImageError:
        try:
            if isinstance(found.image, np.ndarray):
                data, image = found.image.tobytes(), Image.fromarray(found.image)
            else:
                data = found.image if isinstance(found.image, bytes) else content(found.image)
                image = decode_image(data)
        except ImageError as error:
            return error
        rng = None if self.seed is None else np.random.default_rng([self.seed, *found.name.encode()])
        levels = quantise(values(image, self.channels, self.size), self.levels, rng)
        return Pixels((levels.shape[0], levels.shape[1]), levels.tobytes(), blake2b(data, digest_size=8).digest())
