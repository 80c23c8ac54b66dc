"""Writer of the shards of one split, with the counts for the manifest."""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import NotRequired, TypedDict

import pyarrow as pa

from pipeline.dataset.records import RecordWriter
from pipeline.dataset.shard import token_type

SHARD_BYTES = 1 << 28


class SplitEntry(TypedDict):
    """The manifest's entry of a split of records."""

    rows: int
    samples: int
    tokens: int
    bytes: int
    shards: list[dict[str, object]]
    seconds: NotRequired[float]
    """Total duration, of audio only."""
    speakers: NotRequired[dict[str, bool]]
    """Names of the speakers, of audio only; the published manifest has their number."""


class Shards:
    """Writes the shards of a split and counts their contents.

    Args:
        folder: directory of the shards.
        split: name of the split.
        columns: Arrow types of the source's columns, by name.
        vocab_size: vocabulary size of the targets.
        entry: the manifest's entry of the shards of an earlier start, which this writer continues.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        columns: Mapping[str, pa.DataType],
        vocab_size: int,
        entry: SplitEntry | None = None,
    ) -> None:
        self.folder, self.split = folder, split
        self.columns, self.dtype = columns, token_type(vocab_size)
        self.entry: SplitEntry = entry or {"rows": 0, "samples": 0, "tokens": 0, "bytes": 0, "shards": []}
        self.writer: RecordWriter | None = None
        self._shard_bytes = 0

    def add(self, source: Mapping[str, object], targets: Sequence[tuple[Sequence[int], str]]) -> None:
        """Append a row: its source's columns, and the tokens and the text of each target."""
        if self.writer is None:
            path = self.folder / f"{self.split}-{len(self.entry['shards']):05d}.arrow"
            self.writer, self._shard_bytes = RecordWriter(path, self.columns, self.dtype), 0
        references = [reference for _, reference in targets]
        self.writer.add(source, [tokens for tokens, _ in targets], references)
        size = sum(len(reference.encode()) + 1 for reference in references)
        self.entry["rows"] += 1
        self.entry["samples"] += len(targets)
        self.entry["tokens"] += sum(len(tokens) + 1 for tokens, _ in targets)  # with EOS
        self.entry["bytes"] += size
        self._shard_bytes += size + sum(len(value) for value in source.values() if isinstance(value, Sized))
        if self._shard_bytes >= SHARD_BYTES:
            self._next()

    def close(self) -> SplitEntry:
        """Close the last shard and return the manifest's entry."""
        self._next()
        return self.entry

    def _next(self) -> None:
        if self.writer is not None:
            self.entry["shards"].append(self.writer.close()._asdict())
            self.writer = None
