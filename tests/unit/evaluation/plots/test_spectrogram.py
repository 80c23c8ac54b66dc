"""A spectrogram is brightest where the tone is."""

import numpy as np

from pipeline.evaluation.plots.spectrogram import SCALE, colours, spectrogram


def test_a_tone_is_a_bright_line_at_its_frequency() -> None:
    time = np.arange(8000) / 8000
    image = np.asarray(spectrogram(np.sin(2 * np.pi * 1000 * time) * (time < 0.5), 8000)).sum(2)
    assert image.shape == (SCALE * 129, SCALE * 97)
    rows = image[::-SCALE, SCALE * 10]  # from the lowest frequency up, at 0.1 s
    assert int(rows.argmax()) == 32  # of 31.25 Hz each
    assert image[:, SCALE * 80].max() == 0  # silence


def test_a_sound_shorter_than_a_window_is_one_column() -> None:
    assert spectrogram(np.ones(3), 8000).width == SCALE


def test_the_largest_share_is_white_and_nothing_is_black() -> None:
    drawn = colours(np.array([[0.0, 0.1], [0.2, 0.3]]))
    assert drawn[0, 0].tolist() == [0, 0, 0]
    assert drawn[0, 1].tolist() == [255, 0, 0]
    assert drawn[1, 0].tolist() == [255, 255, 0]
    assert drawn[1, 1].tolist() == [255, 255, 255]
    assert not colours(np.zeros((2, 2))).any()
