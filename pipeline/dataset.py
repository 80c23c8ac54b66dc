"""A dataset on disk: a directory of memory-mapped Arrow shards and a `dataset.json`, written once.

A split of kind `tokens` is one long stream: the documents in order, each closed by `<eos>`. Shards are Arrow
stream files (`datasets.Dataset.from_file` reads them) with one row a document in the column `tokens`; a
document too long for one row goes on in the next, and the column `ends` marks the rows that end one.

Legend: N tokens of a stretch of the stream, R rows.
"""

import hashlib
import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt

from pipeline.durable import replace_directory, sha256, write_durably
from pipeline.errors import DataError

__all__ = ["Dataset", "Shard", "ShardWriter", "TokenSplit", "publish", "token_type"]

FORMAT = 1
MANIFEST = "dataset.json"
TOKENIZER = "tokenizer.json"
CONTENT = (
    "format",
    "kind",
    "splits",
    "tokenizer",
    "vocab_size",
    "eos",
)  # what the checksum of a dataset covers
BATCH_TOKENS = 1 << 22  # a record batch: large, so that few windows cross an edge; far below the 2**31 of its offsets
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


class ShardWriter:
    """Writes one shard of a split, a record batch whenever enough tokens have come together.

    Args:
        path: the file to write.
        dtype: the type of a token, see `token_type`.
    """

    def __init__(self, path: Path, dtype: type[np.uint16] | type[np.uint32]) -> None:
        self.path = path
        self.rows = self.tokens = 0
        self._dtype = dtype
        self._held: list[tuple[Any, Any, Any]] = []
        self._held_tokens = 0
        kind = pa.list_(pa.from_numpy_dtype(dtype))
        self._schema = pa.schema([("tokens", kind), ("ends", pa.bool_())])
        self._file = path.open("wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)

    def add(self, ids: UInt[np.ndarray, " N"], lengths: Int64[np.ndarray, " R"], ends: Bool[np.ndarray, " R"]) -> None:
        """Append R rows, none empty: their N tokens, the length of each, and whether it ends a document."""
        self._held.append((ids, lengths, ends))
        self._held_tokens += len(ids)
        if self._held_tokens >= BATCH_TOKENS:
            self._flush()

    def close(self) -> Shard:
        """Write what is held, force it to the disk and describe the finished shard."""
        self._flush()
        self._stream.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return Shard(self.path.name, self.rows, self.tokens, self.path.stat().st_size, sha256(self.path))

    def _flush(self) -> None:
        if not self._held:
            return
        ids, lengths, ends = (np.concatenate(column) for column in zip(*self._held, strict=True))
        assert ids.dtype == self._dtype
        assert len(ids) == lengths.sum() < 1 << 31
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))
        self._stream.write_batch(pa.record_batch([tokens, pa.array(ends)], schema=self._schema))
        self.rows += len(lengths)
        self.tokens += len(ids)
        self._held, self._held_tokens = [], 0


def publish(prepared: Path, target: Path, manifest: Mapping[str, Any], overwrite: bool = False) -> None:
    """Complete the prepared directory with its manifest and give it its name, in one atomic step.

    Args:
        prepared: a directory on the file system of `target`, with the shards and the tokenizer in it.
        target: the name under which the dataset is to be found.
        manifest: what `dataset.json` says, without `format`.
        overwrite: replace a dataset that is already there.

    Raises:
        DataError: `target` exists and is not to be overwritten.
    """
    text = json.dumps({"format": FORMAT, **manifest}, indent=1) + "\n"
    write_durably(prepared / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists; choose another name or add --overwrite")
    replace_directory(prepared, target)


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
            keep = flags.slice(low, high - low).to_numpy(zero_copy_only=False)
            found.append(row_ends[low:high][keep] + np.int64(edges[at]))
        return found[0] if len(found) == 1 else np.concatenate([np.zeros(0, np.int64), *found])

    @cached_property
    def _batches(self) -> tuple[list[int], list[np.ndarray], list[tuple[Any, Any]]]:
        """Of the record batches: edges in the stream, tokens, (where rows end, whether a document does)."""
        edges: list[int] = [0]
        values: list[np.ndarray] = []
        columns: list[tuple[Any, Any]] = []
        for tokens, flags in self._record_batches():
            values.append(tokens.values.to_numpy(zero_copy_only=True))
            columns.append((tokens.offsets.to_numpy()[1:], flags))
            edges.append(edges[-1] + len(values[-1]))
        if edges[-1] != self.tokens:
            raise DataError(f"{self.path}: {self.name!r} has {edges[-1]} tokens, not {self.tokens}; {PREPARE}")
        return edges, values, columns

    def _record_batches(self) -> Iterator[tuple[Any, Any]]:
        for shard in self.shards:
            try:
                for batch in pa.ipc.open_stream(pa.memory_map(str(self.path / shard.file))):
                    yield batch.column("tokens"), batch.column("ends")
            except (OSError, KeyError, pa.ArrowInvalid) as error:
                raise DataError(f"{self.path / shard.file} is damaged ({error}); {PREPARE}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenSplit, (self.path, self.name, self.documents, self.tokens, self.bytes, self.shards)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, opened for reading by `Dataset.open`."""

    path: Path
    kind: str
    splits: dict[str, TokenSplit]
    tokenizer_file: Path
    vocab_size: int
    eos: int
    """The id of the end mark `<eos>`."""
    checksum: str
    """SHA-256 of what `dataset.json` says of the content: equal for equal data, wherever it lies."""
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str], kind: str = "tokens") -> "Dataset":
        """Open the dataset in the directory `path`, checking that its files have their recorded sizes.

        Raises:
            DataError: there is no dataset, or of another kind or format, or files are missing or cut short.
        """
        path = Path(path)
        manifest = _read_manifest(path, kind)
        try:
            splits = {
                name: TokenSplit(path, name, entry["documents"], entry["tokens"], entry["bytes"], _shards(entry))
                for name, entry in manifest["splits"].items()
            }
            content = json.dumps({key: manifest[key] for key in CONTENT}, sort_keys=True)
            tokenizer, vocab_size, eos = manifest["tokenizer"], manifest["vocab_size"], manifest["eos"]
            dataset = cls(path, kind, splits, path / tokenizer["file"], vocab_size, eos,
                          hashlib.sha256(content.encode()).hexdigest(), manifest)  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / MANIFEST} lacks or garbles {error}; {PREPARE}") from error
        for file, size, _ in dataset._files():
            _check_size(path / file, size)
        return dataset

    def verify(self) -> None:
        """Read every shard and the tokenizer and compare their SHA-256 with the recorded one.

        Raises:
            DataError: a file differs; the message names it.
        """
        for file, _, digest in self._files():
            if sha256(self.path / file) != digest:
                raise DataError(f"{self.path / file} is not the file that was written (SHA-256 differs); {PREPARE}")

    def _files(self) -> Iterator[tuple[str, int, str]]:
        tokenizer = self.manifest["tokenizer"]
        yield tokenizer["file"], tokenizer["size"], tokenizer["sha256"]
        for split in self.splits.values():
            yield from ((shard.file, shard.size, shard.sha256) for shard in split.shards)


def _read_manifest(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_dir():
        raise DataError(f"there is no dataset at {path}; prepare one with `unroll prepare`")
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is no dataset (no {MANIFEST} in it); prepare one with `unroll prepare`") from error
    except OSError as error:
        raise DataError(f"{path / MANIFEST} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path / MANIFEST} is no JSON ({error}); {PREPARE}") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DataError(f"{path} has dataset format {version}, this program reads {FORMAT}; {PREPARE}")
    if manifest.get("kind") != kind:
        raise DataError(f"{path} is a dataset of kind {manifest.get('kind')!r}, {kind!r} is wanted; name another one")
    return dict(manifest)


def _shards(entry: Mapping[str, Any]) -> tuple[Shard, ...]:
    return tuple(Shard(**shard) for shard in entry["shards"])


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} is missing ({error.strerror}); {PREPARE}") from error
    if found != size:
        raise DataError(f"{path} has {found} bytes, {size} were written; {PREPARE}")
