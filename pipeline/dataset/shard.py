"""One file of a dataset: an Arrow stream, read through a memory map, known by its size and checksum."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipeline.errors import DataError
from pipeline.files import sha256

PIECE_STEPS = 1 << 24  # of a record batch
PREPARE = "prepare it again with `unroll prepare`"


def token_type(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The narrowest unsigned type that holds every id below `vocab_size`."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


class Shard(NamedTuple):
    """One shard as the manifest lists it; `size` is its length on disk in bytes."""

    file: str
    rows: int
    tokens: int
    size: int
    sha256: str


class ShardFile:
    """A shard while it is written, one record batch after the other.

    Args:
        path: the file.
        schema: its columns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self.rows = self.tokens = 0
        self._file = path.open("wb")
        self._stream = pa.ipc.new_stream(self._file, schema)

    def write(self, columns: Sequence[Any], tokens: int) -> None:
        """Append a record batch, in which there are so many tokens."""
        batch = pa.record_batch(columns, schema=self.schema)
        self._stream.write_batch(batch)
        self.rows += batch.num_rows
        self.tokens += tokens

    def close(self) -> Shard:
        """Force the file to the disk and describe it."""
        self._stream.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Shard(self.path.name, self.rows, self.tokens, self.path.stat().st_size, sha256(self.path))


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[tuple[Sequence[Any], int]]) -> Shard:
    """Write rows, each with the steps that are in it, in as few pieces as fit into memory twice, and describe them."""
    file, held, steps = ShardFile(path, schema), list[Sequence[Any]](), 0

    def flush() -> None:
        columns = zip(zip(*held, strict=True), schema.types, strict=True)
        file.write([pa.array(values, kind) for values, kind in columns], steps)

    for row, size in rows:
        held.append(row)
        steps += size
        if steps >= PIECE_STEPS:
            flush()
            held, steps = [], 0
    if held:
        flush()
    return file.close()


def record_batches(folder: Path, shards: Sequence[Shard]) -> Iterator[Any]:
    """All record batches of the shards in order, as views of the disk.

    Raises:
        DataError: a file is missing or damaged.
    """
    for shard in shards:
        try:
            yield from pa.ipc.open_stream(pa.memory_map(str(folder / shard.file)))
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{folder / shard.file} is damaged ({error}); {PREPARE}") from error


def arrow_column(batch: Any, name: str, shard_folder: Path) -> Any:
    """A column of a record batch.

    Raises:
        DataError: there is none of that name.
    """
    if name not in batch.schema.names:
        raise DataError(f"{shard_folder} has shards without the column {name!r}; {PREPARE}")
    return batch.column(name)


def all_batches(folder: Path, shards: Sequence[Shard], rows: int) -> list[Any]:
    """All record batches of the shards, which hold so many rows.

    Raises:
        DataError: a file is missing or damaged, or there are more or fewer rows.
    """
    batches = list(record_batches(folder, shards))
    if (found := sum(batch.num_rows for batch in batches)) != rows:
        raise DataError(f"{folder} has {found} rows, not {rows}; {PREPARE}")
    return batches


def joined(batches: Sequence[Any], name: str, folder: Path) -> Any:
    """The values of a column in all rows."""
    return np.concatenate([arrow_column(batch, name, folder).to_numpy(zero_copy_only=False) for batch in batches])


def flat(batches: Sequence[Any], name: str, folder: Path) -> Any:
    """The elements of all rows' lists; where the file is one piece, without a copy."""
    parts = [arrow_column(batch, name, folder).flatten().to_numpy(zero_copy_only=False) for batch in batches]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def edges(batches: Sequence[Any], name: str, folder: Path) -> Int64[np.ndarray, " _"]:
    """Where each row's list begins among the elements of all, and after the last one their number."""
    parts = [np.diff(arrow_column(batch, name, folder).offsets.to_numpy()) for batch in batches]
    return np.concatenate([[0], np.cumsum(np.concatenate(parts))]).astype(np.int64)
