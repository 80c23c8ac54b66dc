"""Plots of attention show the weights at their positions."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset.codecs.image import MARGIN, montage
from pipeline.evaluation.plots.attention import CAPTION, CELL, GAP, PANEL, against, attention_panels, photograph
from pipeline.evaluation.plots.figure import DPI, legible, rendered, save


def pixels_of(figure) -> tuple[int, int]:
    """Return width and height of the axes, without labels outside."""
    width, height = figure.get_size_inches() * DPI
    return round(width), round(height)


def test_each_word_has_a_row_and_each_word_of_the_source_a_column() -> None:
    weights = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    figure = against(["ein", "rotes", "Haus"], ["a", "house"], weights)
    [axes] = figure.axes
    assert pixels_of(figure) == (3 * CELL, 2 * CELL)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ein", "rotes", "Haus"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "house"]
    drawn = np.asarray(rendered(figure)).astype(int)
    right, foot = drawn.shape[1] - DPI // 10, drawn.shape[0] - DPI // 10  # the cells are drawn last
    middles = [[drawn[foot - CELL * t - 12, right - CELL * s - 12].sum() for s in (2, 1, 0)] for t in (1, 0)]
    white, black = 3 * 255, 10  # the darkest color of the map is not quite black
    assert middles == [[black, black, white], [white, black, black]]


def test_labels_are_outside_and_do_not_overlap() -> None:
    words = [f"a rather long word {number}" for number in range(30)]
    figure = against(words, words, np.eye(30))
    rendered(figure)
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_every_word_has_its_panel() -> None:
    weights = np.stack([np.eye(3).ravel(), np.eye(3)[::-1].ravel(), np.ones(9)])
    blue = np.zeros((3, 60, 60), np.uint8)
    blue[2] = 255
    figure = photograph(blue, ["a", "blue", "square"], weights)
    assert pixels_of(figure) == (4 * (PANEL + GAP), PANEL + CAPTION)
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [[], ["a"], ["blue"], ["square"]]
    assert [len(axes.images) for axes in figure.axes] == [1, 2, 2, 2]
    np.testing.assert_array_equal(figure.axes[2].images[1].get_array(), weights[1].reshape(3, 3))
    assert rendered(figure).getpixel((30, 30)) == (0, 0, 255)


@pytest.mark.parametrize(("words", "grid"), [(1, (1, 2)), (11, (2, 8)), (16, (3, 8))])
def test_panels_fill_rows_of_a_figure(words: int, grid: tuple[int, int]) -> None:
    figure = photograph(np.zeros((3, 8, 8), np.uint8), ["word"] * words, np.ones((words, 4)))
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == grid
    assert sum(bool(axes.images) for axes in figure.axes) == words + 1
    assert pixels_of(figure) == (grid[1] * (PANEL + GAP), grid[0] * (PANEL + CAPTION))


def test_heat_is_drawn_over_the_attended_region() -> None:
    shares = np.zeros((1, 4, 4))
    shares[0, 1, 3] = 1.0
    glowing = (
        np.asarray(rendered(attention_panels(Image.new("RGB", (80, 80), "black"), ["a"], shares, 2))).astype(int).sum(2)
    )
    edge = DPI // 10  # of white paper
    glowing = glowing[edge : edge + 80, edge + 80 + GAP : edge + 2 * 80 + GAP]
    assert np.unravel_index(glowing.argmax(), glowing.shape)[0] // 20 == 1
    assert glowing[20:40, 60:].mean() > 5 * glowing[50:, :40].mean()


def test_a_caption_that_is_wider_than_its_panel_is_cut() -> None:
    figure = photograph(np.zeros((3, 8, 8), np.uint8), ["W" * 40, "short"], np.ones((2, 4)))
    rendered(figure)
    long, short = figure.axes[1].texts[0], figure.axes[2].texts[0]
    assert (long.get_text(), short.get_text()) == ("W" * 11 + "…", "short")
    assert long.get_clip_on()
    assert short.get_window_extent().width < PANEL


def test_no_character_causes_a_warning_or_an_error(tmp_path: Path) -> None:
    words = ["Mädchen", "日本", "$\\foo$", "", " ", "\n", "a\tb", "\x00"]
    weights = np.ones((len(words), len(words)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rendered(against(words, words, weights))
        save(photograph(np.zeros((3, 8, 8), np.uint8), words, np.ones((len(words), 4))), tmp_path / "p.svg")
    assert [legible(word) for word in words] == ["Mädchen", "日本", "$\\foo$", "", "␣", "\\n", "a\\tb", "\\x00"]
    assert "<svg" in (tmp_path / "p.svg").read_text()
    with pytest.raises(ValueError, match="none"):
        save(against(words, words, weights), tmp_path / "p.none")


def test_panels_fill_rows() -> None:
    panels = [Image.new("RGB", (10, 10), colour) for colour in ("red", "green", "blue")]
    whole = montage(panels, 2)
    assert whole.size == (20 + MARGIN, 20 + MARGIN)
    assert whole.getpixel((5, 15 + MARGIN)) == (0, 0, 255)
    assert whole.getpixel((15 + MARGIN, 15 + MARGIN)) == (255, 255, 255)
