"""A split of records: each row is a source with one or more targets, and each target is a sample.

Examples are a text with its translations, a word with its pronunciations, an image with its captions, and a sound with
its transcript. Every shard has the columns of the source, which depend on the kind of dataset, and two more:
`targets`, the tokens of each target without EOS, and `references`, the text of each target.

Legend: R rows, N samples, L tokens of a target.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt

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

BATCH_ROWS = 4096  # maximum rows of a record batch
BATCH_BYTES = 1 << 26


class RecordWriter:
    """A writer of one shard of a split.

    Args:
        path: the file to write.
        columns: Arrow types of the source's columns, by name.
        dtype: type of a token, see `token_type`.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, pa.DataType], dtype: type[np.uint16] | type[np.uint32]
    ) -> None:
        tokens = pa.list_(pa.list_(pa.from_numpy_dtype(dtype)))
        schema = pa.schema([*columns.items(), ("targets", tokens), ("references", pa.list_(pa.string()))])
        self._file = ShardFile(path, schema)
        self._buffer: list[tuple[object, ...]] = []
        self._tokens = self._bytes = 0

    def add(self, source: Mapping[str, object], targets: Sequence[Sequence[int]], references: Sequence[str]) -> None:
        """Append a row: the columns of the source, and the tokens and the text of each target."""
        assert len(targets) == len(references) > 0
        row = {**source, "targets": targets, "references": references}
        self._buffer.append(tuple(row[name] for name in self._file.schema.names))
        self._tokens += sum(map(len, targets)) + len(targets)  # including EOS
        self._bytes += sum(len(value) for value in source.values() if isinstance(value, bytes))
        if len(self._buffer) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._flush()

    def close(self) -> Shard:
        """Flush the shard to disk and return its manifest entry."""
        self._flush()
        return self._file.close()

    def _flush(self) -> None:
        if not self._buffer:
            return
        types = self._file.schema.types
        columns = zip(zip(*self._buffer, strict=True), types, strict=True)
        self._file.write([arrow_array(values, kind) for values, kind in columns], self._tokens)
        self._buffer, self._tokens, self._bytes = [], 0, 0


@dataclass(frozen=True)
class RecordSplit:
    """One split as rows on disk; it is pickled by path, so loader workers open the files themselves."""

    path: Path
    """The directory of the dataset."""
    name: str
    rows: int
    samples: int
    """Number of targets in all rows."""
    tokens: int
    """Tokens of all targets, with EOS after each."""
    bytes: int
    """UTF-8 bytes of all targets, with one for each EOS; the denominator of bits per byte."""
    shards: tuple[Shard, ...] = field(repr=False)

    @classmethod
    def of(cls, path: Path, name: str, entry: SplitEntry) -> "RecordSplit":
        """Create the split from its manifest entry."""
        counts = entry["rows"], entry["samples"], entry["tokens"], entry["bytes"]
        return cls(path, name, *counts, tuple(Shard(**shard) for shard in entry["shards"]))

    @cached_property
    def first_samples(self) -> Int64[np.ndarray, " _"]:
        """The index of each row's first sample, followed by the number of samples."""
        return _edges(_lengths(self._columns("targets")))

    @cached_property
    def target_lengths(self) -> Int64[np.ndarray, " N"]:
        """Number of tokens of each sample's target, without EOS."""
        return _lengths(self._flat_targets())

    def lengths(self, name: str) -> Int64[np.ndarray, " R"]:
        """Return the length of each row's list in the column `name`."""
        return _lengths(self._columns(name))

    def numbers(self, name: str) -> Int64[np.ndarray, " R"]:
        """Return the column `name`, which has one integer per row."""
        return _concatenated([numpy_array(column) for column in self._columns(name)])

    def row_of(self, sample: int) -> int:
        """Return the row of a sample."""
        return int(self.first_samples.searchsorted(sample, "right")) - 1

    def value(self, name: str, row: int) -> Any:
        """Return a column's value in one row: an array for a list of numbers, else bytes or text."""
        row = self._inside(row)
        if name not in self._lists:
            columns = self._columns(name)
            self._lists[name] = Lists(columns) if pa.types.is_list(columns[0].type) else None
        lists = self._lists[name]
        return self._scalar(name, row).as_py() if lists is None else lists[row]

    def target(self, sample: int) -> UInt[np.ndarray, " L"]:
        """Return the tokens of a sample's target, without EOS."""
        return self._targets[sample]

    def references(self, row: int) -> list[str]:
        """Return the text of each target of a row."""
        texts: list[str] = self._scalar("references", self._inside(row)).as_py()
        return texts

    def _scalar(self, name: str, row: int) -> pa.Scalar:
        edges, batches = self._batches
        at = bisect_right(edges, row) - 1
        return arrow_column(batches[at], name, self.path)[row - edges[at]]

    def _inside(self, row: int) -> int:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} is outside of the {self.rows} rows of {self.name!r}")
        return row

    def _columns(self, name: str) -> list[pa.Array]:
        return [arrow_column(batch, name, self.path) for batch in self._batches[1]]

    @cached_property
    def _lists(self) -> dict[str, "Lists | None"]:
        """The columns that were read, by name; None if they hold no lists."""
        return {}

    @cached_property
    def _targets(self) -> "Lists":
        return Lists(self._flat_targets())

    def _flat_targets(self) -> list[pa.Array]:
        return [column.flatten() for column in self._columns("targets")]

    @cached_property
    def _batches(self) -> tuple[list[int], list[pa.RecordBatch]]:
        """The index of each record batch's first row, followed by the number of rows; and the record batches."""
        batches = list(record_batches(self.path, self.shards))
        edges = _edges(np.array([batch.num_rows for batch in batches], np.int64)).tolist()
        if edges[-1] != self.rows:
            raise DataError(f"{self.path}: {self.name!r}: expected {self.rows} rows, got {edges[-1]}. {PREPARE}")
        return edges, batches

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return RecordSplit, (self.path, self.name, self.rows, self.samples, self.tokens, self.bytes, self.shards)


class Lists:
    """Lists of numbers in Arrow arrays, read without a copy and without an object of Arrow for each.

    Args:
        parts: the arrays, whose lists are numbered through.
    """

    def __init__(self, parts: Sequence[pa.ListArray]) -> None:
        self._firsts = _edges(np.array([len(part) for part in parts], np.int64)).tolist()
        self._parts = [(numpy_array(part.offsets), numpy_array(part.values)) for part in parts]

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._firsts[-1]:
            raise IndexError(f"list {index} is outside of the {self._firsts[-1]} lists")
        at = bisect_right(self._firsts, index) - 1
        offsets, values = self._parts[at]
        first = index - self._firsts[at]
        return values[offsets[first] : offsets[first + 1]]


def _lengths(parts: Sequence[pa.ListArray]) -> Int64[np.ndarray, " K"]:
    return _concatenated([np.diff(numpy_array(part.offsets)) for part in parts])


def _edges(counts: Int64[np.ndarray, " K"]) -> Int64[np.ndarray, " _"]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _concatenated(parts: Sequence[np.ndarray]) -> Int64[np.ndarray, " K"]:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
