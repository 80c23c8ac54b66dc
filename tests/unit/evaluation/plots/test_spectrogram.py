"""A spectrogram is brightest where the tone is."""

import numpy as np

from pipeline.evaluation.plots.spectrogram import SCALE, spectrogram


def test_a_tone_is_a_bright_line_at_its_frequency() -> None:
    time = np.arange(8000) / 8000
    image = np.asarray(spectrogram(np.sin(2 * np.pi * 1000 * time) * (time < 0.5), 8000)).sum(2)
    assert image.shape == (SCALE * 129, SCALE * 97)
    rows = image[::-SCALE, SCALE * 10]  # from the lowest frequency up, at 0.1 s
    assert int(rows.argmax()) == 32  # of 31.25 Hz each
    assert image[:, SCALE * 80].max() == 0  # silence


def test_a_sound_shorter_than_a_window_is_one_column() -> None:
    assert spectrogram(np.ones(3), 8000).width == SCALE
