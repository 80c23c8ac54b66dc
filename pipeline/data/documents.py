"""The documents in the rows of a batch, found by the loader, so that the host does not wait for the device.

A document that continues from one row to the next is one in each of them. Networks read documents in one of two ways:
all rows at once with attention inside of each document, or each document as a padded row of its own. Padded rows have
one of a few lengths (T, T/2, T/4, ...), and their number is rounded up, so that a run has few shapes in all.

Legend: B rows, T positions, S documents, R padded rows, L positions of a padded row.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

SHORTEST = 8  # positions of the shortest padded rows


class Documents(NamedTuple):
    """The documents in the rows of a batch."""

    positions: Int64[Tensor, "B T"]
    """The position of each input in its document, from 0."""
    lengths: tuple[int, ...]
    """Number of positions of each document, row by row; their sum is B T."""
    offsets: Int32[Tensor, " _"]
    """The sums of these lengths, from 0; B T is repeated up to a length of 2^k + 1."""
    padded: tuple[Int64[Tensor, "R L"], ...]
    """The input, from 0 to B T - 1, at each position of the padded rows of each length. Every document starts a row;
    what follows its end there is arbitrary, as are rows without a document."""
    places: Int64[Tensor, " B*T"]
    """The position of each input in all padded rows, from the first length to the last."""

    @classmethod
    def of(cls, starts: Bool[np.ndarray, "B T"]) -> "Documents":
        """Return the documents that start where `starts` is True and, in each row, at position 0."""
        rows, context = starts.shape
        opens = starts.copy()
        opens[:, 0] = True
        first = np.flatnonzero(opens)
        lengths = np.diff(first, append=starts.size)
        positions = np.arange(starts.size) - np.repeat(first, lengths)
        offsets = np.full((1 << int(len(first) - 1).bit_length()) + 1, starts.size, np.int32)
        offsets[: len(first)] = first
        padded, places = _padded(first, lengths, context)
        return cls(
            torch.from_numpy(positions.reshape(rows, context)),
            tuple(lengths.tolist()),
            torch.from_numpy(offsets),
            tuple(map(torch.from_numpy, padded)),
            torch.from_numpy(places),
        )


def _padded(
    first: np.ndarray, lengths: np.ndarray, context: int
) -> tuple[list[Int64[np.ndarray, "R L"]], Int64[np.ndarray, " I"]]:
    """Return the padded rows of each length, and the place of each of I inputs in them."""
    inputs, before = int(lengths.sum()), 0
    padded, places = [], np.empty(inputs, np.int64)
    longest = context
    while longest:
        shorter = longest // 2 if longest >= 2 * SHORTEST else 0
        mine = (lengths <= longest) & (lengths > shorter)
        count, steps = int(mine.sum()), np.arange(longest)
        starting = np.zeros(_rounded(count), np.int64)
        starting[:count] = first[mine]
        rows = np.minimum(starting[:, None] + steps, inputs - 1)
        inside = steps < lengths[mine][:, None]
        places[rows[:count][inside]] = before + np.flatnonzero(inside)
        padded.append(rows)
        before += rows.size
        longest = shorter
    return padded, places


def _rounded(count: int) -> int:
    """Return the next of 1, 2, ..., 8, 10, 12, 14, 16, 20, ...: four numbers per power of two.

    At least one row of each length makes the number of calls equal on every process.
    """
    step = 1 << max(0, count.bit_length() - 3)
    return max(1, -(-count // step) * step)
