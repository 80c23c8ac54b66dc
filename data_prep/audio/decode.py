"""Decoding of audio clips to one channel at one rate, and joining of clips to strings.

Legend: S samples.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.audio.clips import Clip
from pipeline.dataset.codecs import audio

CLIPPED = 0.001  # fraction of samples at full scale above which a clip is reported as clipped
PAUSE = (0.02, 0.2)  # seconds between joined clips
CONTAINERS = {".wav": ("WAV", "WAVEX", "RF64"), ".flac": ("FLAC",), ".mp3": ("MP3", "MPEG"), ".ogg": ("OGG",)}


class DecodedClip(NamedTuple):
    """A decoded clip; without data, one that is dropped for the reason in its notes."""

    name: str
    data: bytes
    samples: int
    notes: tuple[str, ...] = ()
    target: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class ClipDecoder:
    """Decodes, mixes and resamples clips.

    Args:
        rate: sampling rate of the result in hertz.
        shortest: minimum duration in seconds; shorter clips are dropped.
        longest: maximum duration in seconds; longer clips are dropped.
    """

    rate: int
    shortest: float
    longest: float

    def __call__(self, clip: Clip) -> DecodedClip | str:
        """Return the decoded clip, or the reason why it is invalid."""
        try:
            found = audio.decode_audio(clip.read())
        except OSError as error:
            return f"cannot be read: {error.strerror or 'no such file'}"
        except audio.SoundError as error:
            return str(error)
        seconds = len(found.samples) / found.rate
        notes = tuple(self._notes(clip.name, found))
        if seconds < self.shortest:
            return DecodedClip(clip.name, b"", 0, (*notes, f"shorter than {self.shortest:g} s: dropped"))
        if seconds > self.longest:
            return DecodedClip(clip.name, b"", 0, (*notes, f"longer than {self.longest:g} s: dropped"))
        samples = audio.at_rate(found, self.rate)
        return DecodedClip(clip.name, audio.encode_audio(samples, self.rate, found.bits), len(samples), notes)

    def _notes(self, name: str, found: audio.Sound) -> Iterator[str]:
        """Yield what is unusual about the clip but does not exclude it."""
        suffix = Path(name).suffix.lower()
        if found.container not in CONTAINERS.get(suffix, (found.container,)):
            yield f"{found.container} by content, {suffix} by name"
        if audio.clipped_share(found.samples) > CLIPPED:
            yield "clipped: samples at full scale"
        if found.samples.shape[1] > 2:
            yield f"{found.samples.shape[1]} channels, mixed into one"


def joined(
    clips: Sequence[DecodedClip], length: tuple[int, int], times: float, rate: int, seed: int
) -> Iterator[DecodedClip]:
    """Yield random strings of clips of one speaker, with pauses between the clips and spaces between the targets.

    Args:
        clips: clips to draw from.
        length: minimum and maximum number of clips in a string.
        times: average number of strings that use a clip.
        rate: sampling rate in hertz.
        seed: random seed of the strings.
    """
    by_speaker = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    fewest, most = length
    for number in range(round(times * len(clips) / ((fewest + most) / 2))):
        rng = np.random.default_rng((seed, number))
        # The probability of a speaker is proportional to the number of the speaker's clips.
        choices = by_speaker[clips[int(rng.integers(len(clips)))].speaker]
        drawn = [choices[int(at)] for at in rng.integers(len(choices), size=rng.integers(fewest, most + 1))]
        parts = []
        for clip in drawn:
            parts += [audio.decode(clip.data), np.zeros(int(rng.uniform(*PAUSE) * rate), np.float32)]
        samples = np.concatenate(parts)
        text = " ".join(clip.target for clip in drawn)
        data = audio.encode_audio(samples, rate)
        yield DecodedClip(f"string-{number:05d}", data, len(samples), (), text, drawn[0].speaker)
