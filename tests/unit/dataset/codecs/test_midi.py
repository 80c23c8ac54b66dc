"""MIDI files, written here byte by byte, become the frames that their notes fill."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dataset.codecs.midi import LONGEST, MidiError, held_notes, midi_of, read_midi
from pipeline.dataset.music import KEYS
from tests.unit.data_prep.valid_files import midi_file

BEAT = b"\x83\x60"  # 480 ticks
HALF = b"\x81\x70"  # 240 ticks


def note(key: int, channel: int = 0, wait: bytes = b"\0", held: bytes = BEAT) -> bytes:
    return wait + bytes([0x90 | channel, key, 80]) + held + bytes([0x80 | channel, key, 0])


def sounding(data: bytes, steps_per_beat: int) -> list[list[int]]:
    return [[21 + int(key) for key in np.flatnonzero(frame)] for frame in read_midi(data, steps_per_beat).frames]


def test_a_note_fills_the_frames_between_its_nearest_edges() -> None:
    two = midi_file(note(60), note(64, wait=HALF))
    assert sounding(two, 1) == [[60], [64]]  # both edges of the second are at the middle of a beat, and move up
    assert sounding(two, 2) == [[60], [60, 64], [64]]
    short = midi_file(note(60, wait=BEAT, held=b"\x01") + note(62, wait=BEAT))
    assert sounding(short, 2) == [[60], [], [62], [62]]


def test_the_tempo_does_not_move_notes() -> None:
    fast = b"\0\xff\x51\x03\x01\x00\x00"
    plain, changed = midi_file(note(60) + note(62)), midi_file(fast + note(60) + fast.replace(b"\1", b"\7") + note(62))
    assert sounding(changed, 4) == sounding(plain, 4)


def test_the_tracks_of_a_file_sound_together_and_open_notes_end_with_their_track() -> None:
    open_note = b"\0\x90\x43\x50" + BEAT + b"\xff\x01\x00"
    assert sounding(midi_file(note(60), open_note), 1) == [[60, 67]]


def test_drums_and_keys_that_a_piano_lacks_are_counted() -> None:
    found = read_midi(midi_file(note(60) + note(36, channel=9) + note(20) + note(109)), 1)
    assert (found.drums, found.outside, found.frames.sum()) == (1, 2, 1)
    with pytest.raises(MidiError, match=r"no notes \(1 of drums, 0 outside of the keyboard\)"):
        read_midi(midi_file(note(36, channel=9)), 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"MThd", "damaged MIDI file"),
        (b"RIFF" + bytes(40), "damaged MIDI file (MThd not found"),
        (midi_file(note(60))[:-3], "damaged MIDI file"),
        (midi_file(note(60), kind=2), "MIDI file of type 2, whose tracks are separate pieces"),
        (midi_file(note(60), division=0xE728), "MIDI file in seconds instead of beats"),
        (midi_file(note(60, held=b"\xff\xff\xff\x7f"), division=1), f"more than {LONGEST} frames (268435455)"),
    ],
)
def test_an_unusable_file_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MidiError) as error:
        read_midi(data, 1)
    assert str(error.value).startswith(reason)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_frames_that_are_written_are_read_again(seed: int, steps_per_beat: int) -> None:
    frames = np.random.default_rng(seed).random((9, KEYS)) < 0.1
    frames[[0, -1], 40] = True  # silence at both ends is not part of a piece
    np.testing.assert_array_equal(read_midi(midi_of(frames, steps_per_beat), steps_per_beat).frames, frames)
    assert sum(end - start for start, end, _ in held_notes(frames)) == frames.sum()
