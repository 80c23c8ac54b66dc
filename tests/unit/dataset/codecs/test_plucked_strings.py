"""Rendered notes have the pitch and the length of their keys, and decay."""

import numpy as np
import pytest

from pipeline.dataset.codecs.plucked_strings import frequency, rendered_notes
from pipeline.dataset.music import KEYS


@pytest.mark.numeric
@pytest.mark.parametrize(("key", "hertz"), [(48, 440.0), (39, 261.6256), (0, 27.5)])
def test_a_key_has_its_frequency_in_equal_temperament(key: int, hertz: float) -> None:
    assert frequency(key) == pytest.approx(hertz, rel=1e-6)
    frames = np.zeros((8, KEYS), bool)
    frames[:, key] = True
    sound = rendered_notes(frames, 0.25, 8000)
    spectrum = np.abs(np.fft.rfft(sound[:16000]))  # half a hertz per value
    assert abs(spectrum.argmax() / 2 - hertz) <= 0.5
    assert np.abs(sound).max() == pytest.approx(0.9)
    assert np.abs(sound[12000:16000]).max() < 0.5 * np.abs(sound[:4000]).max()


def test_silence_is_silent_and_a_note_ends() -> None:
    frames = np.zeros((8, KEYS), bool)
    assert not rendered_notes(frames, 0.25, 8000).any()
    frames[:2, 40] = True
    sound = rendered_notes(frames, 0.25, 8000)
    assert sound[:4000].any()
    assert not sound[round(0.63 * 8000) :].any()
