"""Augmentation of sounds in training, as a function of seed, epoch and sample alone.

Speed: Ko et al. (2015), "Audio augmentation for speech recognition". Masks over time intervals and frequency bands:
Park et al. (2019), "SpecAugment"; their edges are drawn here and applied to the spectrogram by the network.

Legend: S samples.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from pipeline.dataset.codecs.audio import resample
from pipeline.errors import ConfigError

Masks = Float32[np.ndarray, "_ 2"]


@dataclass(frozen=True)
class Augmentation:
    """Strength of each augmentation; all are off by default.

    Args:
        shift: maximum shift in seconds, earlier or later; the gap is filled with silence.
        gain: maximum change of loudness in decibels.
        noise: minimum signal-to-noise ratio of added white noise in decibels; drawn from [noise, noise + 30].
        speed: maximum relative change of speed: 0.1 is a tenth.
        time_masks: number of masked time intervals.
        time_share: maximum length of a time mask, as a fraction of the sound.
        mel_masks: number of masked frequency bands.
        mel_share: maximum width of a frequency mask, as a fraction of the bands.

    Raises:
        ConfigError: a fraction is out of range.
    """

    shift: float = 0.0
    gain: float = 0.0
    noise: float | None = None
    speed: float = 0.0
    time_masks: int = 0
    time_share: float = 0.1
    mel_masks: int = 0
    mel_share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.speed < 1:
            raise ConfigError(f"speed={self.speed} must be in [0, 1)")
        for name in ("time_share", "mel_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be in [0, 1]")

    def wave(self, samples: Float32[np.ndarray, " S"], rate: int, chance: np.random.Generator) -> np.ndarray:
        """Return the augmented sound at the same rate; a change of speed changes its length."""
        if self.speed:
            samples = resample(samples, rate * (1 + chance.uniform(-self.speed, self.speed)), rate)
        if self.shift:
            samples = _moved(samples, round(chance.uniform(-self.shift, self.shift) * rate))
        if self.noise is not None:
            decibels = chance.uniform(self.noise, self.noise + 30)
            loud = np.sqrt(np.mean(samples.astype(np.float64) ** 2))
            samples = samples + chance.standard_normal(len(samples), np.float32) * loud * 10 ** (-decibels / 20)
        if self.gain:
            samples = samples * 10 ** (chance.uniform(-self.gain, self.gain) / 20)
        return samples.astype(np.float32)

    def masks(self, chance: np.random.Generator) -> tuple[Masks, Masks]:
        """Return the edges of the masks over time and over frequency, from 0 to 1."""
        return _edges(self.time_masks, self.time_share, chance), _edges(self.mel_masks, self.mel_share, chance)


def _moved(samples: Float32[np.ndarray, " S"], by: int) -> Float32[np.ndarray, " S"]:
    moved = np.zeros_like(samples)
    by = max(-len(samples), min(by, len(samples)))
    moved[max(by, 0) : len(samples) + min(by, 0)] = samples[max(-by, 0) : len(samples) - max(by, 0)]
    return moved


def _edges(count: int, share: float, chance: np.random.Generator) -> Masks:
    widths = chance.uniform(0, share, count)
    begins = chance.uniform(0, 1, count) * (1 - widths)
    edges: Masks = np.stack([begins, begins + widths], 1).astype(np.float32)
    return edges
