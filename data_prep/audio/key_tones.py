"""Generated clips of telephone key tones in noise, with the keys as the exact transcript.

ITU-T Recommendation Q.23 (1988): each key is the sum of one tone of a low group and one of a high group, in hertz:

           1209  1336  1477  1633
      697     1     2     3     A
      770     4     5     6     B
      852     7     8     9     C
      941     *     0     #     D

Legend: S samples.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from data_prep.audio.clips import Clip
from pipeline.dataset.codecs.audio import encode_audio

LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477, 1633)
KEYS = ("123A", "456B", "789C", "*0#D")
TONES = {key: (LOW[row], HIGH[place]) for row, keys in enumerate(KEYS) for place, key in enumerate(keys)}
DIGITS = "0123456789"
RATE = 8000
NOISE_DB = (0.0, 20.0)  # range of the signal-to-noise ratio, drawn for each clip


def tones(key: str, seconds: float, rate: int = RATE) -> Float32[np.ndarray, " S"]:
    """Return the two tones of a key, each at 0.4 of full scale, faded in and out over 5 ms."""
    time = np.arange(int(seconds * rate)) / rate
    edge = np.minimum(time, time[::-1]) / 0.005
    both = sum(np.sin(2 * np.pi * frequency * time) for frequency in TONES[key])
    made: Float32[np.ndarray, " S"] = (0.4 * both * edge.clip(max=1)).astype(np.float32)
    return made


def dialled(keys: str, rng: np.random.Generator, rate: int = RATE) -> Float32[np.ndarray, " S"]:
    """Return the tones of several keys with random durations and pauses, in white noise."""
    parts = [np.zeros(int(rng.uniform(0.03, 0.1) * rate), np.float32)]
    for key in keys:
        pause = np.zeros(int(rng.uniform(0.03, 0.12) * rate), np.float32)
        parts += [tones(key, rng.uniform(0.06, 0.16), rate), pause]
    sound = np.concatenate(parts) * rng.uniform(0.2, 0.9)
    loud = np.sqrt(np.mean(sound**2))
    noise = rng.standard_normal(len(sound)) * loud * 10 ** (-rng.uniform(*NOISE_DB) / 20)
    made: Float32[np.ndarray, " S"] = (sound + noise).clip(-0.999, 0.999).astype(np.float32)
    return made


def clips(count: int, labels: bool, seed: int = 0) -> Iterator[Clip]:
    """Yield `count` clips: one key with its label, or 3 to 7 digits with their transcript."""
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        keys = "".join(rng.choice(list(TONES if labels else DIGITS), 1 if labels else rng.integers(3, 8)))
        fields = {"label": keys} if labels else {"text": " ".join(keys)}
        yield Clip(f"keys-{number:05d}", None, fields, encode_audio(dialled(keys, rng), RATE))
