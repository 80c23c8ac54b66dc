"""Generated pieces in the style of chorales: four voices that move to the nearest notes of a chord progression.

piece   = phrase phrase ...        of 8 beats each, in one major or minor key
phrase  = chord chord ... chord    by a graph of functional harmony, ending with dominant and tonic
"""

import random
from collections.abc import Iterator

import numpy as np

from pipeline.dataset.music import KEYS, LOWEST, Piece

BEATS = 8  # of a phrase
TONIC, DOMINANT = 0, 4  # degrees of the scale
FOLLOWING = {0: (1, 3, 4, 5), 1: (4,), 2: (3, 5), 3: (0, 1, 4), 4: (0, 5), 5: (1, 3)}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 11)}
PASSING = 0.2  # probability of a passing note after a chord
VOICES = ((40, 57), (48, 67), (55, 74), (60, 81))  # lowest and highest note of bass, tenor, alto and soprano


def chorales(count: int, steps_per_beat: int) -> Iterator[Piece]:
    """Yield `count` pieces; always the same ones.

    Args:
        count: number of pieces.
        steps_per_beat: frames of a quarter note.
    """
    for number in range(count):
        rng = random.Random(number)
        mode, tonic, phrases = rng.choice([*SCALES]), rng.randrange(12), rng.randint(3, 6)
        scale = [(tonic + step) % 12 for step in SCALES[mode]]
        frames = [frame for _ in range(phrases) for frame in _phrase(rng, scale, steps_per_beat)]
        sounding = np.zeros((len(frames), KEYS), bool)
        for step, notes in enumerate(frames):
            sounding[step, [note - LOWEST for note in notes]] = True
        yield Piece(f"chorale {number} in {mode}", sounding)


def _phrase(rng: random.Random, scale: list[int], steps_per_beat: int) -> Iterator[list[int]]:
    """Yield the notes of each frame of a phrase."""
    degrees = [TONIC]
    while len(degrees) < BEATS - 3:
        degrees.append(rng.choice(FOLLOWING[degrees[-1]]))
    degrees += [DOMINANT, TONIC, TONIC]
    notes = [(low + high) // 2 for low, high in VOICES]
    for degree in degrees:
        chord = [scale[(degree + third) % 7] for third in (0, 2, 4)]
        held = [_nearest(notes[0], chord[:1], VOICES[0])]
        held += [_nearest(note, chord, voice) for note, voice in zip(notes[1:], VOICES[1:], strict=True)]
        passing = [*held[:3], _nearest(held[3] + 2 * (rng.random() < PASSING), scale, VOICES[3])]
        last = steps_per_beat // 2 if steps_per_beat > 1 else 0  # frames of a passing note in the soprano
        yield from [held] * (steps_per_beat - last) + [passing] * last
        notes = held


def _nearest(note: int, pitches: list[int], voice: tuple[int, int]) -> int:
    """Return the note in the range of a voice that is nearest and has one of the pitches."""
    low, high = voice
    return min((each for each in range(low, high + 1) if each % 12 in pitches), key=lambda each: abs(each - note))
