"""Piano rolls as images: time on the x axis, pitch on the y axis, one colour for given and one for new frames.

Legend: T frames, K keys, H pixels of height, W of width.
"""

import numpy as np
from jaxtyping import Bool
from PIL import Image

SCALE = 6  # pixels per frame and key
MARGIN = 2  # keys above the highest and below the lowest
PAPER, BLACK_KEY, BEAT = (255, 255, 255), (241, 241, 241), (214, 214, 214)
GIVEN, NEW = (120, 120, 120), (31, 95, 208)
BLACK = (1, 4, 6, 9, 11)  # distance of black keys from an A, in semitones


def piano_roll(frames: Bool[np.ndarray, "T K"], given: int, steps_per_beat: int) -> Image.Image:
    """Return the picture of a piece.

    Args:
        frames: True where a key sounds.
        given: number of first frames that were given.
        steps_per_beat: frames of a quarter note; every fourth one has a line.
    """
    keys = np.flatnonzero(frames.any(0))
    low, high = (max(0, keys.min() - MARGIN), min(frames.shape[1], keys.max() + MARGIN + 1)) if len(keys) else (0, 1)
    shown = frames[:, low:high].T
    colours = np.full((*shown.shape, 3), PAPER, np.uint8)
    colours[np.isin((low + np.arange(high - low)) % 12, BLACK)] = BLACK_KEY
    colours[:, :: 4 * steps_per_beat] = BEAT
    colours[:, :given][shown[:, :given]] = GIVEN
    colours[:, given:][shown[:, given:]] = NEW
    return Image.fromarray(np.kron(colours[::-1], np.ones((SCALE, SCALE, 1), np.uint8)))
