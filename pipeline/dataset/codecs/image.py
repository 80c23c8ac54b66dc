"""Decode image files of any colour mode to upright RGB pixels; damaged or too large images are rejected.

The input of a network is a square crop, scaled to its size: the central one, or a random one in training.

Legend: S pixels of a side of the square.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps

from pipeline.dataset.codecs.unusable import UnusableContent

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # of Pillow; others can start programs
MAX_PIXELS = 1 << 26  # of an image before scaling; 67 megapixels take 200 MB
LONGEST = 65_500  # pixels of a side of a JPEG
TWELVE_BITS = 1 << 12  # a 16-bit image of lower values only has an unknown range
ORIENTATION = 0x0112  # tag in EXIF; from 5 on, width and height are exchanged
ONE_COLOUR = "image of one colour"  # reason of a note
MARGIN = 4  # pixels between panels, and around a text
QUALITY = 92  # of JPEG

Image.MAX_IMAGE_PIXELS = None  # decode_image checks a limit of its own before decoding
warnings.filterwarnings("ignore", module=r"PIL\.")  # EXIF that cannot be read does not matter


class ImageError(UnusableContent):
    """An image that cannot be used."""


class Size(NamedTuple):
    """The size of an image in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} x {self.height}"


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


def read_image(file: Path, enough: int | None = None) -> Image.Image:
    """Decode a file; see `decode_image`.

    Raises:
        ImageError: also if the file cannot be read.
    """
    return decode_image(content(file), enough)


def content(file: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise ImageError("cannot be read", error.strerror or "") from error


def decode_image(
    data: bytes, enough: int | None = None, max_pixels: int = MAX_PIXELS, stated: Size | None = None
) -> Image.Image:
    """Decode a file to an upright RGB image: the first frame, with white in place of transparent pixels.

    Args:
        data: contents of the file.
        enough: sufficient length of the shorter side, to which a JPEG is decoded approximately, which is faster.
        max_pixels: larger images are rejected before decoding.
        stated: size that the image has according to its source.

    Raises:
        ImageError: the data is not an image, or the image is damaged, truncated, too large or of another size.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # decoders raise errors of many types
        raise ImageError("not a readable image" if data else "empty file") from error
    size = Size(*image.size)
    if size.width * size.height > max_pixels:
        raise ImageError(f"more than {max_pixels} pixels", str(size))
    try:
        if stated and stated != size and not (stated == size[::-1] and _orientation(image) >= 5):
            raise ImageError("image of another size than stated", f"{size} instead of {stated}")
        if enough is not None:
            image.draft(None, (enough, enough))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _coloured(image)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError("truncated image" if "truncated" in str(error).lower() else "damaged image") from error


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ORIENTATION, 1))


def _coloured(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("image of floating-point values")
    if image.mode.startswith("I"):
        image = _of_bytes(np.asarray(image).astype(np.int64))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    above = image.convert("RGBA")
    white = Image.new("RGBA", above.size, "white")
    white.alpha_composite(above)
    return white.convert("RGB")


def _of_bytes(grey: Int64[np.ndarray, "H W"]) -> Image.Image:
    """Return the upper bytes of 16-bit grey values."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high >= 1 << 16:
        raise ImageError("image of more than 16 bits per value", f"from {low} to {high}")
    if 0 < high < TWELVE_BITS:
        raise ImageError("16-bit image that uses 12 bits or fewer", f"at most {high}")
    return Image.fromarray((grey >> 8).astype(np.uint8))


class Shrunk(NamedTuple):
    """An image file of limited size, and whether all its pixels are equal."""

    file: bytes
    uniform: bool


def shrink(data: bytes, size: int, max_pixels: int = MAX_PIXELS, stated: Size | None = None) -> Shrunk:
    """Return an image file whose shorter side has at most `size` pixels; the same bytes if it is small enough.

    Raises:
        ImageError: see `decode_image`.
    """
    image = decode_image(data, 2 * size, max_pixels, stated)
    uniform = _is_uniform(image.resize((4, 4), Image.Resampling.NEAREST)) and _is_uniform(image)
    with Image.open(io.BytesIO(data), formats=FORMATS) as given:
        plain = given.format == "JPEG" and given.mode == "RGB" and _orientation(given) == 1
        if plain and min(given.size) <= size:
            return Shrunk(data, uniform)
    scale = min(1.0, size / min(image.size))
    shape = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if max(shape) > LONGEST:
        raise ImageError(f"image longer than {LONGEST} pixels")
    return Shrunk(encode_image(image if scale == 1.0 else image.resize(shape, Image.Resampling.LANCZOS)), uniform)


def _is_uniform(image: Image.Image) -> bool:
    return all(low == high for low, high in (band.getextrema() for band in image.split()))


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
