"""Attention becomes a picture that shows it where it is."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from pipeline.dataset.codecs.image import MARGIN, montage
from pipeline.evaluation.plots.attention import CELL, PANEL, against, colours, heat, label, lettering, photograph


def test_the_largest_share_is_white_and_nothing_is_black() -> None:
    drawn = colours(np.array([[0.0, 0.1], [0.2, 0.3]]))
    assert drawn[0, 0].tolist() == [0, 0, 0]
    assert drawn[0, 1].tolist() == [255, 0, 0]
    assert drawn[1, 0].tolist() == [255, 255, 0]
    assert drawn[1, 1].tolist() == [255, 255, 255]
    assert not colours(np.zeros((2, 2))).any()


def test_heat_lies_over_the_region_that_is_looked_at() -> None:
    shares = np.zeros((4, 4))
    shares[1, 3] = 1.0
    glowing = np.asarray(heat(Image.new("RGB", (80, 80), "black"), shares)).sum(2)
    assert np.unravel_index(glowing.argmax(), glowing.shape)[0] // 20 == 1
    assert glowing[20:40, 60:].mean() > 5 * glowing[50:, :40].mean()


def test_each_word_has_a_row_and_each_word_of_the_source_a_column() -> None:
    looks = np.zeros((2, 3))
    looks[0, 2] = looks[1, 0] = 1.0
    drawn = against(["ein", "rotes", "Haus"], ["a", "house"], looks)
    left, top = label("house").width, label("rotes").width
    assert drawn.size == (left + 3 * CELL, top + 2 * CELL)
    middles = [
        [drawn.getpixel((left + CELL * s + CELL // 2, top + CELL * t + CELL // 2)) for s in range(3)] for t in (0, 1)
    ]
    white, black = (255, 255, 255), (0, 0, 0)
    assert middles == [[black, black, white], [white, black, black]]


def test_every_word_has_its_panel() -> None:
    looks = np.stack([np.eye(3).ravel(), np.eye(3)[::-1].ravel(), np.ones(9)])
    blue = np.zeros((3, 60, 60), np.uint8)
    blue[2] = 255
    whole = photograph(blue, ["a", "blue", "square"], looks)
    assert whole.size == (4 * PANEL + 3 * MARGIN, PANEL + label("").height)
    assert whole.getpixel((30, 30)) == (0, 0, 255)
    written = np.asarray(whole)[PANEL:, 2 * (PANEL + MARGIN) : 3 * (PANEL + MARGIN) - MARGIN]
    assert written.min() < 100  # "blue" is written below the second heat


def test_a_letter_that_the_only_font_lacks_loses_its_accent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ImageFont.truetype

    def missing(font: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(font, str):  # Pillow's own is no file
            raise OSError
        return found(font, *rest, **more)

    monkeypatch.setattr("PIL.ImageFont.truetype", missing)
    plain = label("Madchen")
    assert [lettering(text, 14)[1] for text in ("Mädchen", "日本", "", "a b")] == ["Madchen", "?", "", "a b"]
    assert label("Mädchen").tobytes() == plain.tobytes()


def test_panels_fill_rows() -> None:
    panels = [Image.new("RGB", (10, 10), colour) for colour in ("red", "green", "blue")]
    whole = montage(panels, 2)
    assert whole.size == (20 + MARGIN, 20 + MARGIN)
    assert whole.getpixel((5, 15 + MARGIN)) == (0, 0, 255)
    assert whole.getpixel((15 + MARGIN, 15 + MARGIN)) == (255, 255, 255)
