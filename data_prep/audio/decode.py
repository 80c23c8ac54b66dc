"""Decoding of audio clips to one channel at one rate, and joining of clips to strings.

Legend: S samples.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from data_prep.audio.clips import Clip, Part
from pipeline.dataset.codecs import audio

CLIPPED = 0.001  # fraction of samples at full scale above which a clip is reported as clipped
SILENCE = 2.0**-14  # range of the samples of silence: two steps of 16 bits
ROUNDED = 0.05  # seconds by which a stated duration may differ from the decoded one; stated ones are rounded
DURATION = "another duration than stated; --ignore-durations omits this check"
PAUSE = (0.02, 0.2)  # seconds between joined clips
CONTAINERS = {".wav": ("WAV", "WAVEX", "RF64"), ".flac": ("FLAC",), ".mp3": ("MP3", "MPEG"), ".ogg": ("OGG",)}
SIZED = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "MP3", "MPEG", "OGG", "AIFF", "AU", "CAF", "NIST")
"""Formats in which a truncated file is recognised."""
Note = tuple[str, str]
"""A reason to note a clip, and its detail."""


class DecodedClip(NamedTuple):
    """A decoded clip; without data, one that is dropped for the reason in its notes."""

    name: str
    data: bytes
    samples: int
    notes: tuple[Note, ...] = ()
    target: str = ""
    speaker: str = ""


class Invalid(NamedTuple):
    """The reason why a clip cannot be used, and its detail."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class ClipDecoder:
    """Decodes, mixes and resamples the clips of a recording.

    Args:
        rate: sampling rate of the result in hertz.
        shortest: minimum duration in seconds; shorter clips are dropped.
        longest: maximum duration in seconds; longer clips are dropped.
    """

    rate: int
    shortest: float
    longest: float

    def __call__(self, clips: Sequence[Clip]) -> list[DecodedClip | Invalid]:
        """Return each of the clips of one recording decoded, or why it is invalid."""
        try:
            found = audio.decode_audio(clips[0].read())
        except OSError as error:
            return [Invalid("cannot be read", error.strerror or "no such file")] * len(clips)
        except audio.SoundError as error:
            return [Invalid(error.reason, error.detail)] * len(clips)
        return [self._decoded(clip, found) for clip in clips]

    def _decoded(self, clip: Clip, recording: audio.Sound) -> DecodedClip | Invalid:
        try:
            found = part_of(recording, clip.part)
        except audio.SoundError as error:
            return Invalid(error.reason, error.detail)
        seconds = len(found.samples) / found.rate
        if seconds < self.shortest:
            return DecodedClip(clip.name, b"", 0, ((f"shorter than {self.shortest:g} s: dropped", ""),))
        if seconds > self.longest:
            return DecodedClip(clip.name, b"", 0, ((f"longer than {self.longest:g} s: dropped", ""),))
        mixed = audio.mono(found.samples)
        notes = tuple(_notes(clip, found, mixed))
        samples = audio.resample(mixed, found.rate, self.rate)
        return DecodedClip(clip.name, audio.encode_audio(samples, self.rate, found.bits), len(samples), notes)


def part_of(recording: audio.Sound, part: Part) -> audio.Sound:
    """Return a part of a recording.

    Raises:
        SoundError: the recording differs from what its source states, or has no such part.
    """
    length, channels = recording.samples.shape
    seconds = length / recording.rate
    tolerance = ROUNDED + (audio.MP3_DELAY / recording.rate if recording.container == "MP3" else 0)
    if part.rate is not None and part.rate != recording.rate:
        raise audio.SoundError("another sampling rate than stated", f"stated {part.rate} Hz, got {recording.rate} Hz")
    if part.channels is not None and part.channels != channels:
        raise audio.SoundError("another number of channels than stated", f"stated {part.channels}, got {channels}")
    if part.recording is not None and abs(part.recording - seconds) > tolerance:
        raise audio.SoundError(DURATION, f"stated {part.recording:g} s, got {seconds:g} s")
    if part.channel is not None and part.channel >= channels:
        raise audio.SoundError("no such channel", f"channel {part.channel} of {channels}, counted from 0")
    end = seconds if part.seconds is None else part.start + part.seconds
    if part.start >= seconds or end > seconds + tolerance:
        raise audio.SoundError("outside its recording", f"{part.start:g} s to {end:g} s of {seconds:g} s")
    samples = recording.samples[round(part.start * recording.rate) : round(end * recording.rate)]
    if part.channel is not None:
        samples = samples[:, part.channel, None]
    return recording._replace(samples=samples)


def _notes(clip: Clip, found: audio.Sound, mixed: Float32[np.ndarray, " S"]) -> Iterator[Note]:
    """Yield what is unusual about a clip but does not exclude it."""
    suffix = Path(clip.name if clip.path is None else clip.path).suffix.lower()
    if found.container not in CONTAINERS.get(suffix, (found.container,)):
        yield "content of another format than the file name", f"{found.container} by content, {suffix} by name"
    if found.container not in SIZED:
        yield "format in which a truncated file is not recognised", found.container
    if found.unread:
        yield "bytes after the samples are not read", f"{found.unread} bytes"
    if (channels := found.samples.shape[1]) > 2:
        yield "more than two channels, mixed into one", f"{channels} channels"
    low, high = float(mixed.min()), float(mixed.max())
    silent = [float(np.ptp(channel)) <= SILENCE for channel in found.samples.T] if channels > 1 else []
    if high - low > SILENCE:
        if any(silent):
            yield "a silent channel, mixed with the others", f"{silent.count(True)} of {channels} channels"
        if (channels > 1 or max(-low, high) >= audio.FULL_SCALE) and audio.clipped_share(found.samples) > CLIPPED:
            yield "clipped: samples at full scale", ""
    elif channels > 1 and not all(silent):
        yield "silence: the channels cancel each other when mixed", ""
    elif max(-low, high) > SILENCE:
        yield "silence: all samples have the same value", f"{low:g}"
    else:
        yield "silence", ""


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
