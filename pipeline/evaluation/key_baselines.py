"""Baselines of polyphonic music from counts: each key by its frequency, and given its state in the frame before.

With n frames of training, of which the key sounds in m, its probability is (m + 1) / (n + 2) (Laplace's rule); the
second baseline counts frames after a frame with the key and after one without it separately.

Legend: T frames, K keys.
"""

import numpy as np
from jaxtyping import Float64, Int64

from pipeline.dataset.music import KEYS, MusicSplit

FREQUENCY, PREVIOUS = "frequency of each key", "key given its previous state"
PARAMETERS = {FREQUENCY: KEYS, PREVIOUS: 2 * KEYS}


def key_baselines(train: MusicSplit, held_out: MusicSplit) -> dict[str, float]:
    """Return the nats per frame of a held-out split, by baseline, without the first frame of each piece.

    Args:
        train: the split that is counted.
        held_out: the split that is predicted.
    """
    counted, asked = transitions(train), transitions(held_out)
    frames = int(asked[:, :, 0].sum())
    return {
        FREQUENCY: _nats(counted.sum(0, keepdims=True), asked.sum(0, keepdims=True)) / frames,
        PREVIOUS: _nats(counted, asked) / frames,
    }


def transitions(split: MusicSplit) -> Int64[np.ndarray, "2 2 K"]:
    """Return the number of frames by the state of a key in the frame before and in this one, for each key."""
    found = np.zeros((2, 2, KEYS), np.int64)
    for number in range(split.pieces):
        frames = split.piece(number)
        before, now = frames[:-1], frames[1:]
        for old in (0, 1):
            for new in (0, 1):
                found[old, new] += ((before == old) & (now == new)).sum(0)
    return found


def _nats(counted: Int64[np.ndarray, "S 2 K"], asked: Int64[np.ndarray, "S 2 K"]) -> float:
    probabilities: Float64[np.ndarray, "S 2 K"] = (counted + 1) / (counted.sum(1, keepdims=True) + 2)
    return float(-(asked * np.log(probabilities)).sum())
