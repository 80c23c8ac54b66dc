"""The rows of all splits become shards, which are closed together; a preparation that was killed goes on there."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from data_prep.workspace.report import Report
from data_prep.workspace.shards import SHARD_BYTES, Shards
from data_prep.workspace.workspace import SPLITS, Workplace


class Rows:
    """The rows of all splits while they are written, and what is known of the work that was done for them.

    Args:
        place: where they are written, and what is noted of an earlier start.
        columns: Arrow types of the sources' columns, by name.
        vocab_size: of the targets.
    """

    def __init__(self, place: Workplace, columns: Mapping[str, pa.DataType], vocab_size: int) -> None:
        self.place, self.columns, self.vocab_size = place, columns, vocab_size
        noted = place.state.records
        self.entries: dict[str, dict[str, Any]] = noted.get("splits", {})
        self.report = Report.recalled(noted["report"]) if noted else Report()
        self._open: dict[str, Shards] = {}
        self._held = 0

    def add(self, split: str, source: Mapping[str, Any], targets: Sequence[tuple[Sequence[int], str]]) -> None:
        """Append a row to a split: its source's columns, and the tokens and the text of each target."""
        if split not in self._open:
            entry = self.entries.get(split)
            self._open[split] = Shards(self.place.path, split, self.columns, self.vocab_size, entry)
            self.entries[split] = self._open[split].entry
        self._open[split].add(source, targets)
        self._held += sum(len(value) for value in source.values() if isinstance(value, bytes))

    def done(self, pieces: int) -> None:
        """So many more pieces of work are done; what is held is noted before it becomes too much to do again."""
        self.place.state.pieces += pieces
        if self._held >= SHARD_BYTES:
            self.close()

    def close(self) -> dict[str, dict[str, Any]]:
        """Close the shards and note how far the preparation is; what the manifest says of each split."""
        for shards in self._open.values():
            shards.close()
        self.place.state.records = {"report": self.report.kept(), "splits": self.entries}
        self.place.remember()
        self._open, self._held = {}, 0
        return {name: self.entries[name] for name in SPLITS if name in self.entries}
