"""Spectrograms of audio as images: time on the x axis, frequency on the y axis, a dynamic range of 60 dB.

Legend: S samples, H pixels of height, W of width.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pipeline.dataset.codecs.audio import encode_audio

SECONDS, HOP = 0.032, 0.01  # length of a window, and time between windows, in seconds
DECIBELS = 60.0
SCALE = 3  # pixels per window and frequency


class Shown(NamedTuple):
    """Audio with its spectrogram."""

    samples: np.ndarray
    rate: int
    picture: Image.Image

    def save(self, file: Path) -> None:
        """Write the sound as a WAV file."""
        file.write_bytes(encode_audio(self.samples, self.rate, container="WAV"))


def spectrogram(samples: Float[np.ndarray, " S"], rate: int) -> Image.Image:
    """Return the spectrogram as an image."""
    size, hop = round(SECONDS * rate), round(HOP * rate)
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(windows)) ** 2
    decibels = 10 * np.log10(np.maximum(power, power.max(initial=1e-12) * 10 ** (-DECIBELS / 10)))
    shares = (decibels - decibels.min()).T[::-1]
    image = Image.fromarray(colours(shares))
    return image.resize((SCALE * image.width, SCALE * image.height))


def colours(shares: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Map values to colors from black for zero over red and yellow to white for the maximum."""
    level = 3 * shares[..., None] / max(float(shares.max()), 1e-12)
    return np.rint(255 * np.clip(level - np.arange(3), 0, 1)).astype(np.uint8)


def with_spectrogram(samples: Float[np.ndarray, " S"], rate: int) -> Shown:
    """Return the audio with its spectrogram."""
    return Shown(samples, rate, spectrogram(samples, rate))
