"""An image file becomes pixels: of any colour mode, upright, refused where it is damaged or absurdly large.

A network sees a square of a photograph, scaled to its size: the central one, or in training one drawn at random.

Legend: S pixels of a side of the square.
"""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

MAX_PIXELS = 1 << 26  # of an image before it is scaled: 67 megapixels are 200 MB
MARGIN = 4  # pixels between panels, and around a text
QUALITY = 92  # of JPEG, where an image is written anew

Image.MAX_IMAGE_PIXELS = None  # our own limit is asked first, before anything is decoded


class ImageError(ValueError):
    """An image that cannot be used; the message says why in a few words."""


class View(NamedTuple):
    """A square of an image, in pixels, and whether it is seen in a mirror."""

    left: float
    top: float
    side: float
    mirrored: bool = False

    @classmethod
    def central(cls, width: int, height: int) -> "View":
        """The largest square in the middle."""
        side = min(width, height)
        return cls((width - side) / 2, (height - side) / 2, side)


def decode_image(data: bytes, enough: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in a file's bytes: upright and in RGB; what is transparent is white.

    Args:
        data: the file.
        enough: a shorter side that suffices: a JPEG is then decoded no larger than about that, which is faster.
        max_pixels: larger ones are refused before they are decoded.

    Raises:
        ImageError: it is no image, damaged, truncated or too large.
    """
    try:
        image: Any = Image.open(io.BytesIO(data))
    except Exception as error:  # decoders raise whatever they stumble on
        raise ImageError("no image that can be read" if data else "empty file") from error
    if image.width * image.height > max_pixels:
        raise ImageError(f"more than {max_pixels} pixels")
    try:
        if enough is not None:
            image.draft(None, (enough, enough))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _coloured(image)
    except Exception as error:
        said = str(error).lower()
        raise ImageError("truncated image" if "truncated" in said else "damaged image") from error


def _coloured(image: Any) -> Image.Image:
    if image.mode.startswith("I"):  # grey of 16 bits
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # type: ignore[no-any-return]
    above = image.convert("RGBA")
    white = Image.new("RGBA", above.size, "white")
    white.alpha_composite(above)
    return white.convert("RGB")


def shrink(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> bytes:
    """The file of an image whose shorter side has at most `size` pixels; the same bytes where nothing is to do.

    Raises:
        ImageError: as `load`.
    """
    image = decode_image(data, 2 * size, max_pixels)
    with Image.open(io.BytesIO(data)) as given:
        plain = given.format == "JPEG" and given.mode == "RGB" and given.getexif().get(0x0112, 1) == 1
        if plain and min(given.size) <= size:
            return data
    scale = min(1.0, size / min(image.size))
    shape = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return encode_image(image if scale == 1.0 else image.resize(shape, Image.Resampling.LANCZOS))


def encode_image(image: Image.Image) -> bytes:
    """The image as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def square(image: Image.Image, view: View, size: int) -> Image.Image:
    """What a view shows of an image, scaled to S x S."""
    box = view.left, view.top, view.left + view.side, view.top + view.side
    seen = image.resize((size, size), Image.Resampling.BILINEAR, box)
    return ImageOps.mirror(seen) if view.mirrored else seen


def pixels(image: Image.Image) -> UInt8[np.ndarray, "3 _ _"]:
    """Red, green and blue from 0 to 255."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def montage(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Panels side by side, so many in a row, each with the room of the largest."""
    width, height = (MARGIN + max(sizes) for sizes in zip(*(panel.size for panel in panels), strict=True))
    rows = -(-len(panels) // columns)
    whole = Image.new("RGB", (width * min(columns, len(panels)) - MARGIN, height * rows - MARGIN), "white")
    for number, panel in enumerate(panels):
        whole.paste(panel, (width * (number % columns), height * (number // columns)))
    return whole
