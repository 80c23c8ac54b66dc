"""Decode image files of any colour mode to upright RGB pixels; damaged or too large images are rejected.

The input of a network is a square crop, scaled to its size: the central one, or a random one in training.

Legend: S pixels of a side of the square.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

MAX_PIXELS = 1 << 26  # of an image before scaling; 67 megapixels take 200 MB
MARGIN = 4  # pixels between panels, and around a text
QUALITY = 92  # of JPEG

Image.MAX_IMAGE_PIXELS = None  # decode_image checks a limit of its own before decoding


class ImageError(ValueError):
    """An image that cannot be used; the message is the reason in a few words."""


class View(NamedTuple):
    """A square crop of an image, in pixels, and whether it is mirrored."""

    left: float
    top: float
    side: float
    mirrored: bool = False

    @classmethod
    def central(cls, width: int, height: int) -> "View":
        """Return the largest centered square."""
        side = min(width, height)
        return cls((width - side) / 2, (height - side) / 2, side)


def decode_image(data: bytes, enough: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a file to an upright RGB image; transparent pixels become white.

    Args:
        data: contents of the file.
        enough: sufficient length of the shorter side, to which a JPEG is decoded approximately, which is faster.
        max_pixels: larger images are rejected before decoding.

    Raises:
        ImageError: the data is not an image, or the image is damaged, truncated or too large.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
    except Exception as error:  # decoders raise errors of many types
        raise ImageError("not a readable image" if data else "empty file") from error
    if image.width * image.height > max_pixels:
        raise ImageError(f"more than {max_pixels} pixels")
    try:
        if enough is not None:
            image.draft(None, (enough, enough))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _coloured(image)
    except Exception as error:
        raise ImageError("truncated image" if "truncated" in str(error).lower() else "damaged image") from error


def _coloured(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greyscale
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    above = image.convert("RGBA")
    white = Image.new("RGBA", above.size, "white")
    white.alpha_composite(above)
    return white.convert("RGB")


def shrink(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return an image file whose shorter side has at most `size` pixels; the same bytes if it is small enough.

    Raises:
        ImageError: see `decode_image`.
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
    """Encode an image as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def square(image: Image.Image, view: View, size: int) -> Image.Image:
    """Crop an image to a view and scale it to S x S."""
    box = view.left, view.top, view.left + view.side, view.top + view.side
    crop = image.resize((size, size), Image.Resampling.BILINEAR, box)
    return ImageOps.mirror(crop) if view.mirrored else crop


def pixels(image: Image.Image) -> UInt8[np.ndarray, "3 _ _"]:
    """Return red, green and blue values from 0 to 255."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def montage(panels: Sequence[Image.Image], columns: int) -> Image.Image:
    """Arrange panels in a grid with cells of the size of the largest panel."""
    width, height = (MARGIN + max(sizes) for sizes in zip(*(panel.size for panel in panels), strict=True))
    rows = -(-len(panels) // columns)
    whole = Image.new("RGB", (width * min(columns, len(panels)) - MARGIN, height * rows - MARGIN), "white")
    for number, panel in enumerate(panels):
        whole.paste(panel, (width * (number % columns), height * (number // columns)))
    return whole
