"""The spectrogram is librosa's, and the same in pieces as at once."""

import numpy as np
import pytest
import torch

from pipeline.models.layers.log_mel import LogMel, hertz_of, mels_of

SETTINGS = [(16000, 80, 400, 160), (8000, 64, 256, 80), (22050, 40, 1024, 256)]


def waves(rows: int = 2, samples: int = 4321) -> torch.Tensor:
    torch.manual_seed(1)
    time = torch.arange(samples) / 8000
    return 0.3 * torch.sin(2 * torch.pi * (200 + 900 * time) * time) + 0.1 * torch.randn(rows, samples)


@pytest.mark.parametrize(("rate", "bands", "window", "hop"), SETTINGS)
def test_it_is_what_librosa_computes(rate: int, bands: int, window: int, hop: int) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is not installed: pip install 'unroll[test]'")
    sound = waves()
    mel, _ = LogMel(rate, bands, window, hop)(sound)
    padded = np.pad(sound.numpy(), ((0, 0), (window - hop, 0)))  # silence before the first sample
    settings = {"sr": rate, "n_fft": window, "hop_length": hop, "n_mels": bands, "center": False}
    expected = np.log(np.maximum(1e-10, librosa.feature.melspectrogram(y=padded, **settings)))
    assert mel.shape == (2, sound.shape[1] // hop, bands)
    assert np.abs(mel.numpy() - expected.transpose(0, 2, 1)).max() < 1e-4


@pytest.mark.numeric
@pytest.mark.parametrize("sizes", [[1000, 3321], [1, 79, 80, 81, 4080], [10] * 432 + [1]], ids=["two", "five", "many"])
def test_a_stream_gives_the_frames_of_the_whole(sizes: list[int]) -> None:
    module, sound = LogMel(8000, 64, 256, 80), waves()
    whole, last = module(sound)
    state, pieces = None, []
    for piece in sound.split(sizes, 1):
        mel, state = module(piece, state)
        pieces.append(mel)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-5)
    assert torch.equal(state, last)
    assert state.shape[1] == 256 - 80 + 4321 % 80


@pytest.mark.numeric
def test_no_frame_needs_a_later_sample() -> None:
    module, sound = LogMel(8000, 64, 256, 80), waves()
    changed = sound.clone()
    changed[:, 800:] = 0
    assert torch.equal(module(changed)[0][:, :10], module(sound)[0][:, :10])
    assert not torch.equal(module(changed)[0][:, 10], module(sound)[0][:, 10])


@pytest.mark.numeric
def test_mels_and_hertz_are_inverse() -> None:
    hertz = np.array([0.0, 100.0, 999.0, 1000.0, 6400.0, 22050.0])
    np.testing.assert_allclose(hertz_of(mels_of(hertz)), hertz, rtol=1e-12)
    assert mels_of(np.array([1000.0, 6400.0])).tolist() == pytest.approx([15, 42])


def test_a_hop_beyond_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="hop=500 must be from 1 to window=400"):
        LogMel(16000, hop=500)
