"""Convert Standard MIDI Files to frames of keys, and frames to MIDI files.

A frame is a step of fixed musical length, a fraction of a quarter note, so changes of the tempo do not move notes.
A note sounds in the frames between its start and its end, each rounded to the nearest edge of a frame, and in at
least one. Notes of channel 10 are drums and have no pitch. A key that is struck again in the next frame looks like
one that is held: in the other direction, successive frames with a key become one note.

Legend: T frames.
"""

import io
import warnings
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import mido
import numpy as np
from jaxtyping import Bool

from pipeline.dataset.codecs.unusable import UnusableContent
from pipeline.dataset.music import KEYS, LOWEST

SUFFIXES = (".mid", ".midi")
DRUMS = 9  # the channel, counted from 0
LONGEST = 1 << 17  # frames of a piece
TICKS = 480  # of a quarter note in files that are written
VELOCITY = 80
BEATS_PER_MINUTE = 100.0


class MidiError(UnusableContent):
    """A MIDI file that cannot be used."""


class Note(NamedTuple):
    """A note, with its start and its end in ticks."""

    key: int
    start: int
    end: int


class MidiMusic(NamedTuple):
    """The music of a file."""

    frames: Bool[np.ndarray, "T 88"]
    """From the first to the last frame with a sound."""
    drums: int
    """Number of notes of channel 10, which are left out."""
    outside: int
    """Number of notes below or above the keys of a piano, which are left out."""


def read_midi(data: bytes, steps_per_beat: int) -> MidiMusic:
    """Return the music of a MIDI file.

    Args:
        data: content of the file.
        steps_per_beat: frames of a quarter note.

    Raises:
        MidiError: the file is damaged, of an unsupported kind, too long, or has no notes.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            file = mido.MidiFile(file=io.BytesIO(data))
    except (OSError, EOFError, ValueError, LookupError, TypeError, mido.KeySignatureError) as error:
        raise MidiError("damaged MIDI file", str(error) or type(error).__name__) from error
    if file.type == 2:
        raise MidiError("MIDI file of type 2, whose tracks are separate pieces")
    ticks = int(file.ticks_per_beat)
    if ticks <= 0:
        raise MidiError("MIDI file in seconds instead of beats")
    played = [note for track in file.tracks for note in _notes(track)]
    pitched = [note for channel, note in played if channel != DRUMS]
    inside = [note for note in pitched if LOWEST <= note.key < LOWEST + KEYS]
    drums, outside = len(played) - len(pitched), len(pitched) - len(inside)
    if not inside:
        raise MidiError("no notes", f"{drums} of drums, {outside} outside of the keyboard")

    def edge(tick: int) -> int:
        return (2 * tick * steps_per_beat + ticks) // (2 * ticks)

    first = edge(min(note.start for note in inside))
    last = max(max(edge(note.end), edge(note.start) + 1) for note in inside)
    if last - first > LONGEST:
        raise MidiError(f"more than {LONGEST} frames", str(last - first))
    frames = np.zeros((last - first, KEYS), bool)
    for note in inside:
        begin = edge(note.start)
        frames[begin - first : max(edge(note.end), begin + 1) - first, note.key - LOWEST] = True
    return MidiMusic(frames, drums, outside)


def _notes(track: mido.MidiTrack) -> Iterator[tuple[int, Note]]:
    """Yield the notes of a track with their channels; a note that is not ended lasts until the end of the track."""
    begun: dict[tuple[int, int], list[int]] = defaultdict(list)
    now = 0
    for message in track:
        now += message.time
        if message.type not in ("note_on", "note_off"):
            continue
        starts = begun[message.channel, message.note]
        if message.type == "note_on" and message.velocity:
            starts.append(now)
        elif starts:
            yield message.channel, Note(message.note, starts.pop(0), now)
    for (channel, key), starts in begun.items():
        for start in starts:
            yield channel, Note(key, start, now)


def midi_of(frames: Bool[np.ndarray, "T 88"], steps_per_beat: int, beats_per_minute: float = BEATS_PER_MINUTE) -> bytes:
    """Return frames as the content of a MIDI file with one piano.

    Args:
        frames: True where a key sounds.
        steps_per_beat: frames of a quarter note.
        beats_per_minute: tempo.
    """
    events = []  # an end comes before a start at the same time
    for start, end, key in held_notes(frames):
        events += [(start, True, key), (end, False, key)]
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(beats_per_minute))])
    times = [0, *(step * TICKS // steps_per_beat for step, _, _ in sorted(events))]
    for (before, now), (_, begins, key) in zip(pairwise(times), sorted(events), strict=True):
        kind, velocity = ("note_on", VELOCITY) if begins else ("note_off", 0)
        track.append(mido.Message(kind, note=LOWEST + key, velocity=velocity, time=now - before))
    content = io.BytesIO()
    mido.MidiFile(tracks=[track], ticks_per_beat=TICKS).save(file=content)
    return content.getvalue()


def held_notes(frames: Bool[np.ndarray, "T 88"]) -> list[tuple[int, int, int]]:
    """Return the first frame, the frame after the last, and the key of each note."""
    silent = np.zeros((1, KEYS), np.int8)
    changes = np.diff(np.concatenate([silent, frames.astype(np.int8), silent]), axis=0).T
    starts, ends = np.argwhere(changes == 1), np.argwhere(changes == -1)
    return [(int(start), int(end), int(key)) for (key, start), (_, end) in zip(starts, ends, strict=True)]
