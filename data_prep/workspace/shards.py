"""Rows become the shards of a split, counted for the manifest."""

from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.dataset.records import RecordWriter
from pipeline.dataset.shard import token_type

SHARD_BYTES = 1 << 28


class Shards:
    """The shards of a split while they are written, and what the manifest says of it.

    Args:
        folder: where they go.
        split: name of the split.
        columns: Arrow types of the source's columns, by name.
        vocab_size: of the targets.
        entry: what the manifest would say so far, to go on from there.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        columns: Mapping[str, pa.DataType],
        vocab_size: int,
        entry: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.split = folder, split
        self.columns, self.dtype = columns, token_type(vocab_size)
        self.entry: dict[str, Any] = entry or {"rows": 0, "samples": 0, "tokens": 0, "bytes": 0, "shards": []}
        self.writer: RecordWriter | None = None
        self.held = 0

    def add(self, source: Mapping[str, Any], targets: Sequence[tuple[Sequence[int], str]]) -> None:
        """Append a row: its source's columns, and the tokens and the text of each target."""
        if self.writer is None:
            path = self.folder / f"{self.split}-{len(self.entry['shards']):05d}.arrow"
            self.writer, self.held = RecordWriter(path, self.columns, self.dtype), 0
        references = [reference for _, reference in targets]
        self.writer.add(source, [tokens for tokens, _ in targets], references)
        size = sum(len(reference.encode()) + 1 for reference in references)
        counted = {"rows": 1, "samples": len(targets), "tokens": sum(len(t) + 1 for t, _ in targets), "bytes": size}
        for name, count in counted.items():
            self.entry[name] += count
        self.held += size + sum(len(value) for value in source.values() if isinstance(value, Sized))
        if self.held >= SHARD_BYTES:
            self._next()

    def close(self) -> dict[str, Any]:
        """What the manifest says."""
        self._next()
        return self.entry

    def _next(self) -> None:
        if self.writer is not None:
            self.entry["shards"].append(self.writer.close()._asdict())
            self.writer = None
