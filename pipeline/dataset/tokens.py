"""A split of kind `tokens` is one stream of tokens: the documents in order, each followed by `<eos>`.

Its shards have one row per document in the column `tokens`. A document too long for one row continues in the next;
the column `ends` marks the rows that end a document.

Legend: N tokens of a range of the stream, R rows.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt

from pipeline.dataset.shard import (
    PREPARE,
    Shard,
    ShardFile,
    SplitEntry,
    arrow_array,
    arrow_column,
    numpy_array,
    record_batches,
)
from pipeline.errors import DataError

BATCH_TOKENS = (
    1 << 22
)  # of a record batch: large, so that few windows cross a boundary, but below 2**31 as offsets require


class ShardWriter:
    """A writer of one shard of a split, which writes a record batch whenever its buffer is full.

    Args:
        path: the file to write.
        dtype: type of a token, see `token_type`.
    """

    def __init__(self, path: Path, dtype: type[np.uint16] | type[np.uint32]) -> None:
        self._dtype = dtype
        self._buffer: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._buffered_tokens = 0
        kind = pa.list_(pa.from_numpy_dtype(dtype))
        self._file = ShardFile(path, pa.schema([("tokens", kind), ("ends", pa.bool_())]))

    def add(self, ids: UInt[np.ndarray, " N"], lengths: Int64[np.ndarray, " R"], ends: Bool[np.ndarray, " R"]) -> None:
        """Append R non-empty rows.

        Args:
            ids: the N tokens of all rows.
            lengths: the number of tokens of each row.
            ends: whether each row ends a document.
        """
        self._buffer.append((ids, lengths, ends))
        self._buffered_tokens += len(ids)
        if self._buffered_tokens >= BATCH_TOKENS:
            self._flush()

    def close(self) -> Shard:
        """Flush the shard to disk and return its manifest entry."""
        self._flush()
        return self._file.close()

    def _flush(self) -> None:
        if not self._buffer:
            return
        ids, lengths, ends = (np.concatenate(column) for column in zip(*self._buffer, strict=True))
        assert ids.dtype == self._dtype
        assert len(ids) == lengths.sum() < 1 << 31
        edges = np.concatenate([[0], np.cumsum(lengths)])
        kind = self._file.schema.field("tokens").type
        tokens = pa.ListArray.from_arrays(arrow_array(edges, pa.int32()), arrow_array(ids, kind.value_type))
        self._file.write([tokens, arrow_array(ends, pa.bool_())], len(ids))
        self._buffer, self._buffered_tokens = [], 0


@dataclass(frozen=True)
class TokenSplit:
    """One split as a stream of tokens on disk; it is pickled by path, so loader workers open the files themselves."""

    path: Path
    """The directory of the dataset."""
    name: str
    documents: int
    tokens: int
    """Length of the stream, with one `<eos>` after each document."""
    bytes: int
    """UTF-8 bytes of the text of the stream; the denominator of bits per byte."""
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: SplitEntry) -> "TokenSplit":
        """Create the split from its manifest entry."""
        counts = entry["documents"], entry["tokens"], entry["bytes"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    def read(self, start: int, stop: int) -> UInt[np.ndarray, " N"]:
        """Return the ids at positions [start, stop), as a view of the memory map if they are in one record batch.

        Raises:
            IndexError: the range is not inside [0, tokens].
        """
        edges, values, _ = self._batches
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"[{start}, {stop}) is not inside the {self.tokens} tokens of {self.name!r}")
        at = bisect_right(edges, start, 0, len(values)) - 1
        first = edges[at]
        if stop <= edges[at + 1]:
            return values[at][start - first : stop - first]
        return np.concatenate([values[at][start - first :], self.read(edges[at + 1], stop)])

    def starts(self, start: int, stop: int) -> Int64[np.ndarray, " R"]:
        """Return the positions in [start, stop) at which a document starts, ascending; position 0 is included."""
        edges, values, columns = self._batches
        found = [np.zeros(1, np.int64)] if start == 0 < stop else []
        for at in range(max(bisect_left(edges, start) - 1, 0), len(values)):
            if edges[at] >= stop:
                break
            row_ends, flags = columns[at]
            # bisect instead of searchsorted, which would convert the whole column to the type of its argument
            low = bisect_left(row_ends, start - edges[at])
            high = bisect_left(row_ends, stop - edges[at], low)
            ends = row_ends[low:high]
            if flags is not None:
                ends = ends[numpy_array(flags.slice(low, high - low))]
            found.append(ends + np.int64(edges[at]))
        return found[0] if len(found) == 1 else np.concatenate([np.zeros(0, np.int64), *found])

    @cached_property
    def _batches(self) -> tuple[list[int], list[np.ndarray], list[tuple[np.ndarray, pa.BooleanArray | None]]]:
        """Boundaries of the record batches in the stream, the tokens of each, and the ends of its rows.

        The ends of rows come with the column `ends`, or None if each row of the batch ends a document.
        """
        edges: list[int] = [0]
        values: list[np.ndarray] = []
        columns: list[tuple[np.ndarray, pa.BooleanArray | None]] = []
        for batch in record_batches(self.path, self.shards):
            tokens, flags = arrow_column(batch, "tokens", self.path), arrow_column(batch, "ends", self.path)
            values.append(numpy_array(tokens.values))
            columns.append((numpy_array(tokens.offsets)[1:], None if flags.true_count == len(flags) else flags))
            edges.append(edges[-1] + len(values[-1]))
        if edges[-1] != self.tokens:
            raise DataError(f"{self.path}: {self.name!r}: expected {self.tokens} tokens, got {edges[-1]}. {PREPARE}")
        return edges, values, columns

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return TokenSplit, (self.path, self.name, self.documents, self.tokens, self.bytes, self.shards)
