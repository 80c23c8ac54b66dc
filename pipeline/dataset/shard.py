"""One file of a dataset: an Arrow stream, read through a memory map and identified by its size and checksum."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.errors import DataError
from pipeline.files import sha256

PIECE_STEPS = 1 << 24  # of a record batch
PREPARE = "Prepare it again with `unroll prepare`."


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the narrowest unsigned type for ids below `vocab_size`."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


class Shard(NamedTuple):
    """The manifest entry of a shard; `size` is its length on disk in bytes."""

    file: str
    rows: int
    tokens: int
    size: int
    sha256: str


class ShardEntry(TypedDict):
    """A shard in dataset.json, with the fields of `Shard`."""

    file: str
    rows: int
    tokens: int
    size: int
    sha256: str


class SplitEntry(TypedDict, total=False):
    """A split in dataset.json: its shards, and the counts of its kind of dataset."""

    shards: list[ShardEntry]
    rows: int
    samples: int
    documents: int
    tokens: int
    bytes: int
    series: int
    steps: int
    covariates: int
    episodes: int
    observation: int
    action: int
    pieces: int
    frames: int


class ShardFile:
    """A shard that is being written, one record batch at a time.

    Args:
        path: the file.
        schema: names and types of the columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self.rows = self.tokens = 0
        self._file = path.open("wb")
        self._stream = pa.ipc.new_stream(self._file, schema)

    def write(self, columns: Sequence[pa.Array], tokens: int) -> None:
        """Append a record batch that contains `tokens` tokens."""
        batch = pa.record_batch(columns, schema=self.schema)
        self._stream.write_batch(batch)
        self.rows += batch.num_rows
        self.tokens += tokens

    def close(self) -> Shard:
        """Flush the file to disk and return its manifest entry."""
        self._stream.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Shard(self.path.name, self.rows, self.tokens, self.path.stat().st_size, sha256(self.path))


def arrow_array(values: Sequence[Any] | np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return the values, of which none is missing, as an Arrow array.

    This is `pa.array`, of which the first call imports pandas; the import takes longer than writing a small dataset.
    """
    if pa.types.is_primitive(kind):
        numbers = np.asarray(values, kind.to_pandas_dtype())
        if pa.types.is_boolean(kind):
            numbers = np.packbits(numbers, bitorder="little")
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(numbers)])
    if pa.types.is_string(kind):
        values = [text.encode() for text in values]
    ends = np.cumsum([0, *map(len, values)])
    assert ends[-1] < 1 << 31, "a record batch is smaller than 2 GiB"
    edges = pa.py_buffer(ends.astype(np.int32))
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        return pa.Array.from_buffers(kind, len(values), [None, edges, pa.py_buffer(b"".join(values))])
    entries = np.concatenate(values) if isinstance(values[0], np.ndarray) else list(chain.from_iterable(values))
    return pa.Array.from_buffers(kind, len(values), [None, edges], children=[arrow_array(entries, kind.value_type)])


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[tuple[Sequence[object], int]]) -> Shard:
    """Write rows, each given with its number of steps, in large record batches; return the manifest entry."""
    file, buffer, steps = ShardFile(path, schema), list[Sequence[object]](), 0

    def flush() -> None:
        columns = zip(zip(*buffer, strict=True), schema.types, strict=True)
        file.write([arrow_array(values, kind) for values, kind in columns], steps)

    for row, size in rows:
        buffer.append(row)
        steps += size
        if steps >= PIECE_STEPS:
            flush()
            buffer, steps = [], 0
    if buffer:
        flush()
    return file.close()


def record_batches(folder: Path, shards: Sequence[Shard]) -> Iterator[pa.RecordBatch]:
    """Yield all record batches of the shards in order, as views of the memory map.

    Raises:
        DataError: a file is missing or damaged.
    """
    for shard in shards:
        try:
            yield from pa.ipc.open_stream(pa.memory_map(str(folder / shard.file)))
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{folder / shard.file} is damaged ({error}). {PREPARE}") from error


def arrow_column(batch: pa.RecordBatch, name: str, shard_folder: Path) -> pa.Array:
    """Return a column of a record batch.

    Raises:
        DataError: the column does not exist.
    """
    if name not in batch.schema.names:
        raise DataError(f"the shards in {shard_folder} lack the column {name!r}. {PREPARE}")
    return batch.column(name)


def numpy_array(array: pa.Array) -> np.ndarray:
    """Return the values of an Arrow array, numbers without a copy.

    `pa.Array.to_numpy` would import pandas, which takes a fifth of a second in each process; it is left to other types.
    """
    if pa.types.is_boolean(array.type) and not array.null_count:
        return np.from_dlpack(array.cast(pa.uint8())).view(bool)
    numeric = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
    if numeric and not array.null_count:
        return np.from_dlpack(array)
    found: np.ndarray = array.to_numpy(zero_copy_only=False)
    return found


def all_batches(folder: Path, shards: Sequence[Shard], rows: int) -> list[pa.RecordBatch]:
    """Return all record batches of the shards, which must have `rows` rows.

    Raises:
        DataError: a file is missing or damaged, or the number of rows is different.
    """
    batches = list(record_batches(folder, shards))
    if (found := sum(batch.num_rows for batch in batches)) != rows:
        raise DataError(f"{folder}: expected {rows} rows, got {found}. {PREPARE}")
    return batches


def joined(batches: Sequence[pa.RecordBatch], name: str, folder: Path) -> np.ndarray:
    """Return the values of a column in all rows."""
    return np.concatenate([numpy_array(arrow_column(batch, name, folder)) for batch in batches])


def flat(batches: Sequence[pa.RecordBatch], name: str, folder: Path) -> np.ndarray:
    """Return the concatenated lists of all rows, without a copy if there is one record batch."""
    parts = [numpy_array(arrow_column(batch, name, folder).flatten()) for batch in batches]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def edges(batches: Sequence[pa.RecordBatch], name: str, folder: Path) -> Int64[np.ndarray, " _"]:
    """Return the offset of each row's list in the concatenated lists, followed by their total length."""
    parts = [np.diff(numpy_array(arrow_column(batch, name, folder).offsets)) for batch in batches]
    return np.concatenate([[0], np.cumsum(np.concatenate(parts))]).astype(np.int64)
