"""Writer of the rows of all splits that continues where an interrupted preparation stopped."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from data_prep.workspace.report import Report
from data_prep.workspace.shards import SHARD_BYTES, Shards, SplitEntry
from data_prep.workspace.workspace import SPLITS, Workplace


class Rows:
    """Writes the rows of all splits and records the progress with each group of finished shards.

    Args:
        place: working directory, with the state of an earlier start.
        columns: Arrow types of the sources' columns, by name.
        vocab_size: vocabulary size of the targets.
    """

    def __init__(self, place: Workplace, columns: Mapping[str, pa.DataType], vocab_size: int) -> None:
        self.place, self.columns, self.vocab_size = place, columns, vocab_size
        saved = place.state.records
        self.entries: dict[str, SplitEntry] = saved.get("splits", {})
        self.homes: dict[str, str] = saved.get("homes", {})
        """Split of each file, by the hash of its content."""
        self.report = Report.from_state(saved["report"]) if saved else Report()
        self._open: dict[str, Shards] = {}
        self._unsaved = 0

    def add(self, split: str, source: Mapping[str, object], targets: Sequence[tuple[Sequence[int], str]]) -> None:
        """Append a row to a split: its source's columns, and the tokens and the text of each target."""
        if split not in self._open:
            entry = self.entries.get(split)
            self._open[split] = Shards(self.place.path, split, self.columns, self.vocab_size, entry)
            self.entries[split] = self._open[split].entry
        self._open[split].add(source, targets)
        self._unsaved += sum(len(value) for value in source.values() if isinstance(value, bytes))

    def done(self, pieces: int) -> None:
        """Count finished pieces of work; close the shards when repeating the unsaved work would take too long."""
        self.place.state.pieces += pieces
        if self._unsaved >= SHARD_BYTES:
            self.close()

    def close(self) -> dict[str, SplitEntry]:
        """Close the shards, save the progress and return the manifest's entry of each split."""
        for shards in self._open.values():
            shards.close()
        self.place.state.records = {"report": self.report.to_state(), "splits": self.entries, "homes": self.homes}
        self.place.save_state()
        self._open, self._unsaved = {}, 0
        return {name: self.entries[name] for name in SPLITS if name in self.entries}
