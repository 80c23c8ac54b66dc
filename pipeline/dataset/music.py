"""Polyphonic music on disk: a row is one piece, with the keys that sound in each frame.

A frame has one bit per key of a piano, from the lowest A (number 21 of MIDI) to the highest C (108). Frames are
stored in 11 bytes each.

Legend: N pieces, T frames of a piece, K keys of a frame (88).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt8

from pipeline.dataset.shard import Shard, SplitEntry, all_batches, arrow_column, edges, flat, write_rows

KEYS = 88
LOWEST = 21  # MIDI number of the first key
FRAME_BYTES = KEYS // 8


@dataclass(frozen=True)
class Piece:
    """One piece of music.

    Args:
        name: name of the piece.
        frames: True where a key sounds.
    """

    name: str
    frames: Bool[np.ndarray, "T 88"]


def write_pieces(path: Path, pieces: Sequence[Piece]) -> Shard:
    """Write a shard of pieces and return its manifest entry."""
    schema = pa.schema({"name": pa.string(), "frames": pa.list_(pa.uint8())})
    rows = (((one.name, np.packbits(one.frames, axis=1).reshape(-1)), len(one.frames)) for one in pieces)
    return write_rows(path, schema, rows)


@dataclass(frozen=True)
class MusicSplit:
    """One split of a dataset of music; it is pickled by path, so loader workers open the files themselves."""

    path: Path
    """The directory of the dataset."""
    name: str
    pieces: int
    frames: int
    """Frames of all pieces."""
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: SplitEntry) -> "MusicSplit":
        """Create the split from its manifest entry."""
        return cls(path, name, entry["pieces"], entry["frames"], tuple(Shard(**shard) for shard in entry["shards"]))

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Number of frames of each piece."""
        return np.diff(self._edges) // FRAME_BYTES

    @cached_property
    def names(self) -> list[str]:
        """Name of each piece."""
        return [name for batch in self._batches for name in arrow_column(batch, "name", self.path).to_pylist()]

    def piece(self, number: int) -> Bool[np.ndarray, "T 88"]:
        """Return the frames of a piece.

        Raises:
            IndexError: the piece does not exist.
        """
        if not 0 <= number < self.pieces:
            raise IndexError(f"piece {number} is outside of the {self.pieces} pieces of {self.name!r}")
        packed = self._packed[self._edges[number] : self._edges[number + 1]].reshape(-1, FRAME_BYTES)
        frames: Bool[np.ndarray, "T 88"] = np.unpackbits(packed, axis=1).view(bool)
        return frames

    @cached_property
    def _edges(self) -> Int64[np.ndarray, " _"]:
        return edges(self._batches, "frames", self.path)

    @cached_property
    def _packed(self) -> UInt8[np.ndarray, " _"]:
        packed: UInt8[np.ndarray, " _"] = flat(self._batches, "frames", self.path)
        return packed

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return all_batches(self.path, self.shards, self.pieces)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return MusicSplit, (self.path, self.name, self.pieces, self.frames, self.shards)
