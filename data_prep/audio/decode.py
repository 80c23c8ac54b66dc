"""A clip is heard: decoded, mixed, resampled, measured, and encoded without loss; and clips are joined to strings.

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

CLIPPED = 0.001  # share of samples at full scale from which a clip is called clipped
PAUSE = (0.02, 0.2)  # seconds between joined clips
CONTAINERS = {".wav": ("WAV", "WAVEX", "RF64"), ".flac": ("FLAC",), ".mp3": ("MP3", "MPEG"), ".ogg": ("OGG",)}


class Heard(NamedTuple):
    """A clip that can be used; or, without data, one that is dropped for the reason in its notes."""

    name: str
    data: bytes
    samples: int
    notes: tuple[str, ...] = ()
    target: str = ""
    speaker: str = ""


@dataclass(frozen=True)
class Hearing:
    """What is done to every clip.

    Args:
        rate: samples a second that are wanted.
        shortest: seconds; shorter clips are dropped.
        longest: seconds; longer clips are dropped.
    """

    rate: int
    shortest: float
    longest: float

    def __call__(self, clip: Clip) -> Heard | str:
        """The clip, or why it is bad."""
        try:
            found = audio.decode_audio(clip.read())
        except OSError as error:
            return f"cannot be read: {error.strerror or 'no such file'}"
        except audio.SoundError as error:
            return str(error)
        seconds = len(found.samples) / found.rate
        notes = tuple(self._notes(clip.name, found))
        if seconds < self.shortest:
            return Heard(clip.name, b"", 0, (*notes, f"shorter than {self.shortest:g} s: dropped"))
        if seconds > self.longest:
            return Heard(clip.name, b"", 0, (*notes, f"longer than {self.longest:g} s: dropped"))
        samples = audio.at_rate(found, self.rate)
        return Heard(clip.name, audio.encode_audio(samples, self.rate, found.bits), len(samples), notes)

    def _notes(self, name: str, found: audio.Sound) -> Iterator[str]:
        """What is strange, but no reason to leave the clip out."""
        suffix = Path(name).suffix.lower()
        if found.container not in CONTAINERS.get(suffix, (found.container,)):
            yield f"{found.container} by content, {suffix} by name"
        if audio.clipped_share(found.samples) > CLIPPED:
            yield "clipped: samples at full scale"
        if found.samples.shape[1] > 2:
            yield f"{found.samples.shape[1]} channels, mixed into one"


def joined(clips: Sequence[Heard], length: tuple[int, int], times: float, rate: int, seed: int) -> Iterator[Heard]:
    """Strings of clips of one speaker, drawn at random, with pauses between them; the targets with spaces.

    Args:
        clips: what is joined.
        length: fewest and most clips of a string.
        times: how often a clip is used, on average.
        rate: samples a second.
        seed: decides what is drawn.
    """
    spoken = defaultdict(list)
    for clip in clips:
        spoken[clip.speaker].append(clip)
    fewest, most = length
    for number in range(round(times * len(clips) / ((fewest + most) / 2))):
        chance = np.random.default_rng((seed, number))
        known = spoken[clips[int(chance.integers(len(clips)))].speaker]  # as often as there are clips
        drawn = [known[int(at)] for at in chance.integers(len(known), size=chance.integers(fewest, most + 1))]
        parts = []
        for clip in drawn:
            parts += [audio.decode(clip.data), np.zeros(int(chance.uniform(*PAUSE) * rate), np.float32)]
        samples = np.concatenate(parts)
        text = " ".join(clip.target for clip in drawn)
        data = audio.encode_audio(samples, rate)
        yield Heard(f"string-{number:05d}", data, len(samples), (), text, drawn[0].speaker)
