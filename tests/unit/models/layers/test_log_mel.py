"""The spectrogram equals librosa's, and is the same in pieces as at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.models.layers.log_mel import LogMel, hertz_of, mels_of

RECORDED = Path(__file__).with_name("log_mel_by_librosa.json")
SETTINGS = [(16000, 80, 400, 160), (8000, 64, 256, 80), (22050, 40, 1024, 256)]


def waves(rows: int = 2, samples: int = 4321) -> torch.Tensor:
    torch.manual_seed(1)
    time = torch.arange(samples) / 8000
    return 0.3 * torch.sin(2 * torch.pi * (200 + 900 * time) * time) + 0.1 * torch.randn(rows, samples)


def chirp(samples: int = 4321) -> np.ndarray:
    """A rising tone over noise of a linear congruential generator: the same numbers on every machine."""
    time, noise = np.arange(samples) / 8000, np.empty(samples)
    state = 1
    for sample in range(samples):
        state = (1103515245 * state + 12345) % 2**31
        noise[sample] = state / 2**31 - 0.5
    return (0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.2 * noise).astype(np.float32)


@pytest.mark.numeric
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_what_librosa_computes(setting: tuple[int, int, int, int]) -> None:
    """Compare with values of librosa 0.11, recorded by `python tests/unit/models/layers/test_log_mel.py`."""
    recorded = json.loads(RECORDED.read_text())[str(setting)]
    rate, bands, window, hop = setting
    mel, _ = LogMel(rate, bands, window, hop)(torch.from_numpy(chirp())[None])
    assert mel.shape == (1, 4321 // hop, bands)
    found = mel[0, [int(frame) for frame in recorded]].numpy()
    np.testing.assert_allclose(found, list(recorded.values()), rtol=0, atol=1e-4)


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


def test_a_hop_beyond_the_window_raises_an_error() -> None:
    with pytest.raises(ValueError, match="hop=500: expected 1 to window=400"):
        LogMel(16000, hop=500)


def record() -> None:
    """Write librosa's frames of the chirp, a few for each setting."""
    import librosa

    values = {}
    for rate, bands, window, hop in SETTINGS:
        padded = np.pad(chirp(), (window - hop, 0))  # silence before the first sample
        settings = {"sr": rate, "n_fft": window, "hop_length": hop, "n_mels": bands, "center": False}
        mel = np.log(np.maximum(1e-10, librosa.feature.melspectrogram(y=padded, **settings))).T
        frames = {0, 1, len(mel) // 2, len(mel) - 1}
        values[str((rate, bands, window, hop))] = {
            frame: [round(float(value), 5) for value in mel[frame]] for frame in sorted(frames)
        }
    RECORDED.write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    record()
