"""Decode, resample and encode audio in any format of libsndfile, and mu-law companding; damaged files are rejected.

Samples are float32 numbers from -1 to 1. Datasets store FLAC of 16 or 24 bits, which is lossless for integers.

Mu-law (ITU-T G.711, here the continuous formula): y = sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = 255, in 256 levels.

Legend: S samples, C channels.
"""

import io
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Float32, UInt8

from pipeline.dataset.codecs import sound_size
from pipeline.dataset.codecs.unusable import UnusableContent

LEVELS = 256
END = LEVELS  # the token after the last level of a clip
FIRST_LABEL = LEVELS + 1  # the token of class 0
MU = LEVELS - 1
LOUDEST = 8.0  # absolute value that no sample of a valid file exceeds; full scale is 1
MP3_DELAY = 2 * 1152  # samples that an encoder of MP3 adds
FULL_SCALE = 0.9999  # absolute value from which a sample counts as clipped; covers both limits of 16 bits


class _Content(io.BytesIO):
    """The bytes of a file; a seek to before the start, which damaged headers cause, goes to the start."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(max(offset, 0) if whence == io.SEEK_SET else offset, whence)


class SoundError(UnusableContent):
    """A sound that cannot be used."""


class Sound(NamedTuple):
    """A decoded file."""

    samples: Float32[np.ndarray, "S C"]
    rate: int
    """Samples per second."""
    container: str
    """libsndfile's name of the format: WAV, FLAC, MP3, OGG, ..."""
    bits: int
    """Bits per sample that preserve the precision of the file: 16 or 24."""
    unread: int = 0
    """Bytes after the samples that were not read."""


def decode_audio(data: bytes) -> Sound:
    """Decode an audio file.

    Raises:
        SoundError: the data is not audio, or is empty, damaged or truncated, or contains samples that are not finite
            or far above full scale.
    """
    if not data:
        raise SoundError("empty file")
    data, truncated, unread = sound_size.with_known_size(data)
    try:
        with soundfile.SoundFile(_Content(data)) as file:
            announced, rate, container, subtype = file.frames, file.samplerate, file.format, file.subtype
            samples = file.read(announced, dtype="float32", always_2d=True)
    except Exception as error:  # soundfile raises errors of its own and RuntimeError
        raise SoundError("not readable as audio", _reason(error)) from error
    if announced == 0 or len(samples) == 0:
        raise SoundError("no samples")
    missing = announced - len(samples)
    if container == "MP3":  # its length is an estimate, unless the first frame states it
        missing = missing - MP3_DELAY if sound_size.states_length(data) else 0
    if missing > 0 or truncated:
        raise SoundError("truncated")
    peak = max(-samples.min(), samples.max())
    if not np.isfinite(peak):
        raise SoundError("NaN or infinite samples")
    if peak > LOUDEST:
        raise SoundError("samples far above full scale, such as 16-bit integers stored as floating-point numbers")
    bits = 16 if subtype in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW") else 24
    return Sound(samples, rate, container, bits, unread)


def _reason(error: Exception) -> str:
    """Return libsndfile's message without the name of the buffer."""
    return str(error).strip().rsplit(": ", 1)[-1].rstrip(".").lower()


def mono(samples: Float32[np.ndarray, "S C"]) -> Float32[np.ndarray, " S"]:
    """Return the mean of the channels."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(1, dtype=np.float64).astype(np.float32)


def resample(samples: Float32[np.ndarray, " S"], rate: float | int, new_rate: float | int) -> Float32[np.ndarray, " _"]:
    """Resample to another number of samples per second, with a low-pass filter (soxr, high quality)."""
    if rate == new_rate:
        return samples
    resampled: Float32[np.ndarray, " _"] = soxr.resample(samples, rate, new_rate)
    return resampled


def at_rate(sound: Sound, rate: int) -> Float32[np.ndarray, " S"]:
    """Return the sound as one channel at `rate` samples per second."""
    return resample(mono(sound.samples), sound.rate, rate)


def encode_audio(samples: Float32[np.ndarray, " S"], rate: int, bits: int = 16, container: str = "FLAC") -> bytes:
    """Encode samples in a file of 16 or 24 bits, clipping them at full scale."""
    top = 1 << (bits - 1)
    integers = np.round(samples.astype(np.float64) * top).clip(-top, top - 1).astype(np.int32)
    aligned = integers.astype(np.int16) if bits == 16 else integers << 8  # libsndfile reads the upper 24 bits
    file = io.BytesIO()
    soundfile.write(file, aligned, rate, format=container, subtype=f"PCM_{bits}")
    return file.getvalue()


def decode(data: bytes) -> Float32[np.ndarray, " S"]:
    """Decode a file that `encode_audio` has written."""
    samples: Float32[np.ndarray, " S"] = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    return samples


def clipped_share(samples: Float32[np.ndarray, "..."]) -> float:
    """Return the fraction of samples at full scale or above."""
    return float((np.abs(samples) >= FULL_SCALE).mean())


def compress(samples: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Quantize samples to mu-law levels; silence is level 128."""
    loud = np.sign(samples) * np.log1p(MU * np.abs(samples).clip(max=1)) / np.log1p(MU)
    levels: np.ndarray = np.floor((loud + 1) / 2 * MU + 0.5).astype(np.uint8)
    return levels


def expand(levels: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Convert mu-law levels to samples, the inverse of `compress` up to half a level."""
    loud = 2 * levels.astype(np.float64) / MU - 1
    samples: np.ndarray = np.sign(loud) * np.expm1(np.abs(loud) * np.log1p(MU)) / MU
    return samples.astype(np.float32)
