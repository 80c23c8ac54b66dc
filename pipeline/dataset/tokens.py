"""A split of kind `tokens` is one long stream: the documents in order, each closed by `<eos>`.

Its shards have one row a document in the column `tokens`; a document too long for one row goes on in the
next, and the column `ends` marks the rows that end one.

Legend: N tokens of a stretch of the stream, R rows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt

from pipeline.dataset.shard import PREPARE, Shard, ShardFile, arrow_column, record_batches
from pipeline.errors import DataError

BATCH_TOKENS = 1 << 22  # a record batch: large, so that few windows cross an edge; far below the 2**31 of its offsets


class ShardWriter:
    """Writes one shard of a split, a record batch whenever enough tokens have come together.

    Args:
        path: the file to write.
        dtype: the type of a token, see `token_type`.
    """

    def __init__(self, path: Path, dtype: type[np.uint16] | type[np.uint32]) -> None:
        self._dtype = dtype
        self._held: list[tuple[Any, Any, Any]] = []
        self._held_tokens = 0
        kind = pa.list_(pa.from_numpy_dtype(dtype))
        self._file = ShardFile(path, pa.schema([("tokens", kind), ("ends", pa.bool_())]))

    def add(self, ids: UInt[np.ndarray, " N"], lengths: Int64[np.ndarray, " R"], ends: Bool[np.ndarray, " R"]) -> None:
        """Append R rows, none empty: their N tokens, the length of each, and whether it ends a document."""
        self._held.append((ids, lengths, ends))
        self._held_tokens += len(ids)
        if self._held_tokens >= BATCH_TOKENS:
            self._flush()

    def close(self) -> Shard:
        """Write what is held, force it to the disk and describe the finished shard."""
        self._flush()
        return self._file.close()

    def _flush(self) -> None:
        if not self._held:
            return
        ids, lengths, ends = (np.concatenate(column) for column in zip(*self._held, strict=True))
        assert ids.dtype == self._dtype
        assert len(ids) == lengths.sum() < 1 << 31
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))
        self._file.write([tokens, pa.array(ends)], len(ids))
        self._held, self._held_tokens = [], 0


@dataclass(frozen=True)
class TokenSplit:
    """One split as a stream of tokens on disk; pickled by its path, so that loader workers open it anew."""

    path: Path
    """The directory of the dataset."""
    name: str
    documents: int
    tokens: int
    """Length of the stream, with one `<eos>` after each document."""
    bytes: int
    """UTF-8 bytes of the text that the stream stands for: what bits per byte are counted in."""
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: Mapping[str, Any]) -> "TokenSplit":
        """The split as the manifest describes it."""
        counts = entry["documents"], entry["tokens"], entry["bytes"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    def read(self, start: int, stop: int) -> UInt[np.ndarray, " N"]:
        """The ids at the positions [start, stop); a view of the disk where one record batch holds them.

        Raises:
            IndexError: the stretch is not inside [0, tokens].
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
        """The positions in [start, stop) at which a document starts, ascending; position 0 is one."""
        edges, values, columns = self._batches
        found = [np.zeros(1, np.int64)] if start == 0 < stop else []
        for at in range(max(bisect_left(edges, start) - 1, 0), len(values)):
            if edges[at] >= stop:
                break
            row_ends, flags = columns[at]
            # bisect, not searchsorted: that would copy the whole column to the type of what it looks for
            low = bisect_left(row_ends, start - edges[at])
            high = bisect_left(row_ends, stop - edges[at], low)
            ends = row_ends[low:high]
            if flags is not None:
                ends = ends[flags.slice(low, high - low).to_numpy(zero_copy_only=False)]
            found.append(ends + np.int64(edges[at]))
        return found[0] if len(found) == 1 else np.concatenate([np.zeros(0, np.int64), *found])

    @cached_property
    def _batches(self) -> tuple[list[int], list[np.ndarray], list[tuple[Any, Any]]]:
        """Of the record batches: edges in the stream, tokens, (where rows end, whether a document does, None: all)."""
        edges: list[int] = [0]
        values: list[np.ndarray] = []
        columns: list[tuple[Any, Any]] = []
        for batch in record_batches(self.path, self.shards):
            tokens, flags = arrow_column(batch, "tokens", self.path), arrow_column(batch, "ends", self.path)
            values.append(tokens.values.to_numpy(zero_copy_only=True))
            columns.append((tokens.offsets.to_numpy()[1:], None if flags.true_count == len(flags) else flags))
            edges.append(edges[-1] + len(values[-1]))
        if edges[-1] != self.tokens:
            raise DataError(f"{self.path}: {self.name!r} has {edges[-1]} tokens, not {self.tokens}; {PREPARE}")
        return edges, values, columns

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenSplit, (self.path, self.name, self.documents, self.tokens, self.bytes, self.shards)
