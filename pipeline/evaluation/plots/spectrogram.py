"""A sound as a picture: time from left to right, frequency from below, black for 60 decibels below the loudest.

Legend: S samples, H pixels of height, W of width.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.dataset.codecs.audio import encode_audio

SECONDS, HOP = 0.032, 0.01  # of a window, and from one to the next
DECIBELS = 60.0
SCALE = 3  # pixels for each window and frequency


class Shown(NamedTuple):
    """A sound to be heard and seen."""

    samples: np.ndarray
    rate: int
    picture: Any

    def save(self, file: Path) -> None:
        """Write the sound as a WAV file."""
        file.write_bytes(encode_audio(self.samples, self.rate, container="WAV"))


def spectrogram(samples: Float[np.ndarray, " S"], rate: int) -> Image.Image:
    """How loud each frequency is, moment by moment."""
    size, hop = round(SECONDS * rate), round(HOP * rate)
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(windows)) ** 2
    decibels = 10 * np.log10(np.maximum(power, power.max(initial=1e-12) * 10 ** (-DECIBELS / 10)))
    shares = (decibels - decibels.min()).T[::-1]
    image = Image.fromarray(colours(shares))
    return image.resize((SCALE * image.width, SCALE * image.height))


def colours(shares: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """From black for nothing over red and yellow to white for the largest."""
    level = 3 * shares[..., None] / max(float(shares.max()), 1e-12)
    return np.rint(255 * np.clip(level - np.arange(3), 0, 1)).astype(np.uint8)


def with_spectrogram(samples: Float[np.ndarray, " S"], rate: int) -> Shown:
    """The sound with its picture."""
    return Shown(samples, rate, spectrogram(samples, rate))
