"""Images of every colour mode are decoded to upright RGB; damaged files are rejected with a reason."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.codecs.image import (
    ImageError,
    Size,
    View,
    decode_image,
    encode_image,
    pixels,
    read_image,
    shrink,
    square,
)

RED = (255, 0, 0)


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode: str, colour: int | tuple[int, ...] | str, size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (file_of(plain("L", 100), "JPEG"), (100, 100, 100)),
        (file_of(plain("1", 1), "PNG"), (255, 255, 255)),
        (file_of(plain("I;16", 200 * 256 + 17), "PNG"), (200, 200, 200)),
        (file_of(plain("I;16", 200 * 256 + 17), "TIFF"), (200, 200, 200)),
        (b"P5 40 20 65535\n" + b"\xc8\x11" * 800, (200, 200, 200)),
        (file_of(plain("RGB", RED).quantize(4), "PNG"), RED),
        (file_of(plain("P", 0), "PNG", transparency=0), (255, 255, 255)),
        (file_of(plain("RGB", RED).quantize(4), "GIF"), RED),
        (file_of(plain("RGB", RED), "GIF", save_all=True, append_images=[plain("RGB", "blue")]), RED),
        (file_of(plain("CMYK", (0, 255, 255, 0)), "JPEG"), RED),
        (file_of(plain("CMYK", (0, 255, 255, 0)), "TIFF"), RED),
        (file_of(plain("RGBA", (*RED, 0)), "PNG"), (255, 255, 255)),
        (file_of(plain("RGBA", (*RED, 255)), "WEBP", lossless=True), RED),
        (file_of(plain("LA", (7, 255)), "PNG"), (7, 7, 7)),
    ],
    ids=[
        *("grey", "bits", "grey of 16 bits", "TIFF of 16 bits", "PGM of 16 bits", "palette", "transparent palette"),
        *("GIF", "animation", "CMYK", "CMYK of TIFF", "transparent", "WebP", "grey with alpha"),
    ],
)
def test_every_colour_mode_is_read_as_red_green_and_blue(data: bytes, colour: tuple[int, int, int]) -> None:
    seen = pixels(decode_image(data))
    assert seen.shape == (3, 20, 40)
    assert np.abs(seen[:, 10, 20].astype(int) - colour).max() <= 3  # JPEG rounds


def test_exif_orientation_is_applied() -> None:
    lying = plain("RGB", "white")
    lying.paste(RED, (0, 0, 10, 20))  # the left edge
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation 6: rotate by 90 degrees clockwise
    upright = decode_image(file_of(lying, "PNG", exif=exif))
    assert upright.size == (20, 40)
    assert upright.getpixel((10, 3)) == RED
    assert decode_image(shrink(file_of(lying, "JPEG", exif=exif), 100).file).size == (20, 40)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image at all", "not a readable image"),
        (file_of(Image.effect_noise((64, 64), 90), "JPEG")[:900], "truncated image"),
        (file_of(plain("RGB", RED), "PNG")[:-30], "image"),
        (file_of(plain("1", 0, (3000, 3000)), "PNG"), "more than 1000000 pixels"),
    ],
)
def test_unusable_files_are_rejected(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_image(data, max_pixels=1_000_000)


def test_invalid_orientations_are_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 0
    for data in (exif.tobytes(), b"Exif\0\0MM", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\0\0"):
        assert decode_image(file_of(plain("RGB", RED), "JPEG", exif=data)).size == (40, 20)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (file_of(plain("F", 0.5), "TIFF"), "image of floating-point values", ""),
        (file_of(plain("I", 70_000), "TIFF"), "image of more than 16 bits per value", "from 70000 to 70000"),
        (file_of(plain("I", -1), "TIFF"), "image of more than 16 bits per value", "from -1 to -1"),
        (file_of(plain("I;16", 4095), "PNG"), "16-bit image that uses 12 bits or fewer", "at most 4095"),
        (file_of(plain("RGB", RED), "EPS"), "not a readable image", ""),
        (file_of(plain("1", 0, (2000, 1000)), "PNG"), "more than 1000000 pixels", "2000 x 1000"),
    ],
)
def test_values_of_unknown_range_and_other_formats_are_rejected(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(data, max_pixels=1_000_000)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_stated_size_must_be_that_of_the_image() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    lying, upright = file_of(plain("RGB", RED), "JPEG"), file_of(plain("RGB", RED), "JPEG", exif=turned)
    assert decode_image(lying, stated=Size(40, 20)).size == (40, 20)
    assert decode_image(upright, stated=Size(40, 20)).size == (20, 40)
    assert decode_image(upright, stated=Size(20, 40)).size == (20, 40)
    with pytest.raises(ImageError, match=r"image of another size than stated \(40 x 20 instead of 20 x 40\)"):
        decode_image(lying, stated=Size(20, 40))
    with pytest.raises(ImageError, match="40 x 20 instead of 80 x 40"):
        shrink(lying, 5, stated=Size(80, 40))


def test_images_of_one_colour_are_marked() -> None:
    other = plain("RGB", RED)
    other.putpixel((7, 3), (250, 0, 0))
    assert shrink(file_of(plain("RGB", RED), "PNG"), 50).uniform
    assert shrink(file_of(plain("L", 7), "JPEG"), 5).uniform
    assert not shrink(file_of(other, "PNG"), 50).uniform


def test_files_that_cannot_be_read_or_written_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="image longer than 65500 pixels"):
        shrink(file_of(plain("1", 0, (65501, 1)), "PNG"), 256)


def test_images_are_scaled_down_and_never_up() -> None:
    large, small = encode_image(plain("RGB", RED, (400, 200))), encode_image(plain("RGB", RED, (40, 20)))
    assert decode_image(shrink(large, 50).file).size == (100, 50)
    assert shrink(small, 50).file is small
    assert decode_image(shrink(file_of(plain("RGB", RED), "PNG"), 50).file).size == (40, 20)


def test_a_view_shows_its_square() -> None:
    image = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).convert("RGB")
    central = pixels(square(image, View.central(*image.size), 10))
    assert (central[0] == np.arange(200).reshape(10, 20)[:, 5:15]).all()
    mirrored = pixels(square(image, View.central(*image.size)._replace(mirrored=True), 10))
    assert (mirrored == central[:, :, ::-1]).all()
    assert pixels(square(image, View(0, 0, 4), 8)).shape == (3, 8, 8)
