"""Render frames of keys as sound: each note is a sum of decaying harmonics, like that of a plucked string.

A note of the frequency f at time t after its start is the sum over harmonics h of  sin(2 pi h f t) exp(-h t / D) / h.
It is damped within a short time after its end.

Legend: T frames, S samples.
"""

import numpy as np
from jaxtyping import Bool, Float32

from pipeline.dataset.codecs.midi import held_notes
from pipeline.dataset.music import LOWEST

RATE = 22_050  # samples per second
CONCERT_A, CONCERT_PITCH = 69, 440.0  # MIDI number and frequency in hertz
HARMONICS = 6
DECAY = 1.2  # seconds in which the first harmonic falls to 1/e
ATTACK, RELEASE = 0.005, 0.12  # seconds
LOUDNESS = 0.9  # of the loudest sample


def frequency(key: int) -> float:
    """Return the frequency of a key of the piano in hertz, in equal temperament."""
    return float(CONCERT_PITCH * 2 ** ((LOWEST + key - CONCERT_A) / 12))


def rendered_notes(frames: Bool[np.ndarray, "T 88"], seconds: float, rate: int = RATE) -> Float32[np.ndarray, " S"]:
    """Return the sound of frames, from -1 to 1.

    Args:
        frames: True where a key sounds.
        seconds: duration of a frame.
        rate: samples per second.
    """
    sound = np.zeros(round((len(frames) * seconds + RELEASE) * rate) + 1, np.float32)
    tones: dict[tuple[int, int], Float32[np.ndarray, " S"]] = {}  # by key and number of frames
    for start, end, key in held_notes(frames):
        if (kind := (key, end - start)) not in tones:
            tones[kind] = _tone(frequency(key), (end - start) * seconds, rate)
        tone = tones[kind]
        begin = round(start * seconds * rate)
        sound[begin : begin + len(tone)] += tone[: len(sound) - begin]
    return sound * np.float32(LOUDNESS / max(float(np.abs(sound).max()), 1e-9))


def _tone(pitch: float, seconds: float, rate: int) -> Float32[np.ndarray, " S"]:
    time = np.arange(round((seconds + RELEASE) * rate)) / rate
    envelope = np.clip(time / ATTACK, 0, 1) * np.clip((seconds + RELEASE - time) / RELEASE, 0, 1)
    audible = [h for h in range(1, HARMONICS + 1) if h * pitch < rate / 2]
    tone = sum((np.sin(2 * np.pi * h * pitch * time) * np.exp(-h * time / DECAY) / h for h in audible), 0 * time)
    return (tone * envelope).astype(np.float32)
