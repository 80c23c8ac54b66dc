"""Audio is decoded exactly or rejected, and mu-law levels equal those of the formula."""

import io
import math

import numpy as np
import pytest
import soundfile

from pipeline.dataset.codecs import audio


def noise(samples: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def file(samples: np.ndarray, subtype: str = "PCM_16", container: str = "WAV", rate: int = 8000) -> bytes:
    held = io.BytesIO()
    soundfile.write(held, samples, rate, format=container, subtype=subtype)
    return held.getvalue()


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("container", ["FLAC", "WAV"])
def test_integers_are_restored_exactly(bits: int, container: str) -> None:
    top = 1 << (bits - 1)
    whole = np.random.default_rng(1).integers(-top, top, 5000)
    whole[:2] = -top, top - 1
    samples = (whole / top).astype(np.float32)
    assert np.array_equal(audio.decode(audio.encode_audio(samples, 8000, bits, container)), samples)


@pytest.mark.parametrize(
    ("subtype", "container", "bits"),
    [
        ("PCM_16", "WAV", 16),
        ("PCM_24", "WAV", 24),
        ("FLOAT", "WAV", 24),
        ("PCM_U8", "WAV", 16),
        ("PCM_16", "FLAC", 16),
        ("VORBIS", "OGG", 24),
        ("MPEG_LAYER_III", "MP3", 24),
    ],
)
def test_files_of_all_kinds_are_read(subtype: str, container: str, bits: int) -> None:
    found = audio.decode_audio(file(0.5 * noise(8000), subtype, container))
    assert found.samples.shape[1] == 1
    assert len(found.samples) == pytest.approx(8000, abs=1200)  # MP3 pads
    assert (found.rate, found.container, found.bits) == (8000, container, bits)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"not a sound", "not readable as audio"),
        (file(np.zeros(0, np.float32)), "no samples"),
        (file(np.array([0.1, math.nan], np.float32), "FLOAT"), "NaN or infinite"),
        (file(np.array([0.1, math.inf], np.float32), "FLOAT"), "NaN or infinite"),
        (file(noise(9000))[:9000], "truncated"),
        (file(noise(9000), container="FLAC")[:9000], "not readable as audio|truncated"),
        (file(noise(9000), container="FLAC")[:60], "not readable as audio|truncated"),
    ],
    ids=["empty", "text", "no samples", "NaN", "infinity", "truncated WAV", "truncated FLAC", "header of FLAC"],
)
def test_unusable_files_are_rejected_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(audio.SoundError, match=reason):
        audio.decode_audio(data)


def test_channels_are_averaged_and_the_rate_changed() -> None:
    time = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 440 * time)
    eight = np.stack([tone * share for share in np.linspace(0.1, 0.8, 8)], 1)
    resampled = audio.at_rate(audio.decode_audio(file(eight, "FLOAT", rate=44100)), 8000)
    assert len(resampled) == 8000
    expected = 0.45 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    assert np.abs(resampled - expected)[200:-200].max() < 1e-3


def test_mu_law_levels_equal_those_of_the_formula() -> None:
    samples = np.linspace(-1, 1, 4001)
    loud = [math.copysign(math.log(1 + 255 * abs(x)) / math.log(256), x) for x in samples]
    expected = [min(255, math.floor((y + 1) / 2 * 255 + 0.5)) for y in loud]
    assert audio.compress(samples).tolist() == expected
    assert audio.compress(np.array([-7.0, 0.0, 7.0])).tolist() == [0, 128, 255]


def test_expanding_levels_is_the_inverse_of_compressing() -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(audio.compress(audio.expand(levels)), levels)
    samples = noise(10_000)
    near = audio.expand(audio.compress(samples))
    assert (np.abs(near - samples) <= 0.0221 * (np.abs(samples) + 1 / 255)).all()  # half a level: 256^(1/255) = 1.022
