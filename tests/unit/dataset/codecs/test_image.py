"""Images of every colour mode are decoded to upright RGB; damaged files are rejected with a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.codecs.image import ImageError, View, decode_image, encode_image, pixels, shrink, square

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
        (file_of(plain("RGB", RED).quantize(4), "PNG"), RED),
        (file_of(plain("RGB", RED).quantize(4), "GIF"), RED),
        (file_of(plain("CMYK", (0, 255, 255, 0)), "JPEG"), RED),
        (file_of(plain("RGBA", (*RED, 0)), "PNG"), (255, 255, 255)),
        (file_of(plain("RGBA", (*RED, 255)), "WEBP", lossless=True), RED),
        (file_of(plain("LA", (7, 255)), "PNG"), (7, 7, 7)),
    ],
    ids=["grey", "bits", "grey of 16 bits", "palette", "GIF", "CMYK", "transparent", "WebP", "grey with alpha"],
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
    assert decode_image(shrink(file_of(lying, "JPEG", exif=exif), 100)).size == (20, 40)


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


def test_images_are_scaled_down_and_never_up() -> None:
    large, small = encode_image(plain("RGB", RED, (400, 200))), encode_image(plain("RGB", RED, (40, 20)))
    assert decode_image(shrink(large, 50)).size == (100, 50)
    assert shrink(small, 50) is small
    assert decode_image(shrink(file_of(plain("RGB", RED), "PNG"), 50)).size == (40, 20)


def test_a_view_shows_its_square() -> None:
    image = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20)).convert("RGB")
    central = pixels(square(image, View.central(*image.size), 10))
    assert (central[0] == np.arange(200).reshape(10, 20)[:, 5:15]).all()
    mirrored = pixels(square(image, View.central(*image.size)._replace(mirrored=True), 10))
    assert (mirrored == central[:, :, ::-1]).all()
    assert pixels(square(image, View(0, 0, 4), 8)).shape == (3, 8, 8)
