"""A sound file becomes samples and back: any format that libsndfile reads, refused where it is damaged; mu-law levels.

Samples are float32 numbers from -1 to 1. What is kept is FLAC of 16 or 24 bits, which gives integers back exactly.

Mu-law (ITU-T G.711, here the continuous formula): y = sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = 255, in 256 levels.

Legend: S samples, C channels.
"""

import io
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Float32, UInt8

LEVELS = 256
END = LEVELS  # the token after the last level of a clip
FIRST_LABEL = LEVELS + 1  # the token of class 0
MU = LEVELS - 1
FULL_SCALE = 0.9999  # from here on a sample counts as clipped: both ends of 16 bits


class SoundError(ValueError):
    """A sound that cannot be used; the message says why in a few words."""


class Sound(NamedTuple):
    """A decoded file."""

    samples: Float32[np.ndarray, "S C"]
    rate: int
    """Samples a second."""
    container: str
    """The format as libsndfile names it: WAV, FLAC, MP3, OGG, ..."""
    bits: int
    """Bits of a sample that hold all that the file does: 16 or 24."""


def decode_audio(data: bytes) -> Sound:
    """The sound in a file's bytes.

    Raises:
        SoundError: it is no sound, empty, damaged, cut short, or holds NaN or infinity.
    """
    if not data:
        raise SoundError("empty file")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            announced, rate, container, subtype = file.frames, file.samplerate, file.format, file.subtype
            samples = file.read(dtype="float32", always_2d=True)
    except Exception as error:  # soundfile raises its own and plain runtime errors
        raise SoundError(f"no sound that can be read ({_said(error)})") from error
    if announced == 0 or len(samples) == 0:
        raise SoundError("no samples")
    missing = len(samples) < announced and container != "MP3"  # whose length is an estimate
    if missing or _is_stump(data):
        raise SoundError("cut short")
    if not np.isfinite(samples).all():
        raise SoundError("NaN or infinite samples")
    return Sound(samples, rate, container, 16 if subtype in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW") else 24)


def _is_stump(data: bytes) -> bool:
    """Whether a RIFF file has fewer bytes than its head says; libsndfile reads such a stump without a word."""
    said = int.from_bytes(data[4:8], "little")
    return data[:4] == b"RIFF" and said not in (0, 0xFFFFFFFF) and len(data) < said + 8  # the two are streams


def _said(error: Exception) -> str:
    """libsndfile's own words, without the name of the buffer."""
    return str(error).strip().rsplit(": ", 1)[-1].rstrip(".").lower()


def mono(samples: Float32[np.ndarray, "S C"]) -> Float32[np.ndarray, " S"]:
    """The mean of the channels."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(1, dtype=np.float64).astype(np.float32)


def resample(samples: Float32[np.ndarray, " S"], rate: float | int, wanted: float | int) -> Float32[np.ndarray, " _"]:
    """The same sound at another number of samples a second, low-passed (soxr, high quality)."""
    if rate == wanted:
        return samples
    made: Float32[np.ndarray, " _"] = soxr.resample(samples, rate, wanted)
    return made


def at_rate(sound: Sound, rate: int) -> Float32[np.ndarray, " S"]:
    """The sound as one channel of so many samples a second."""
    return resample(mono(sound.samples), sound.rate, rate)


def encode_audio(samples: Float32[np.ndarray, " S"], rate: int, bits: int = 16, container: str = "FLAC") -> bytes:
    """The samples as a file of 16 or 24 bits; what is louder than full scale is cut."""
    top = 1 << (bits - 1)
    whole = np.round(samples.astype(np.float64) * top).clip(-top, top - 1).astype(np.int32)
    held = whole.astype(np.int16) if bits == 16 else whole << 8  # libsndfile wants the upper bits
    file = io.BytesIO()
    soundfile.write(file, held, rate, format=container, subtype=f"PCM_{bits}")
    return file.getvalue()


def decode(data: bytes) -> Float32[np.ndarray, " S"]:
    """The samples of a file that `encode` made."""
    samples: Float32[np.ndarray, " S"] = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    return samples


def clipped_share(samples: Float32[np.ndarray, "..."]) -> float:
    """Share of the samples at full scale or beyond."""
    return float((np.abs(samples) >= FULL_SCALE).mean())


def compress(samples: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Mu-law levels of samples; silence is level 128."""
    loud = np.sign(samples) * np.log1p(MU * np.abs(samples).clip(max=1)) / np.log1p(MU)
    levels: np.ndarray = np.floor((loud + 1) / 2 * MU + 0.5).astype(np.uint8)
    return levels


def expand(levels: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Samples for mu-law levels: the inverse of `compress`, to within half a level."""
    loud = 2 * levels.astype(np.float64) / MU - 1
    samples: np.ndarray = np.sign(loud) * np.expm1(np.abs(loud) * np.log1p(MU)) / MU
    return samples.astype(np.float32)
