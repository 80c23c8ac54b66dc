"""Clips of sound read as a text whose letters are mu-law levels: the raw wave as a sequence to be modelled.

The clips of a split stand one after the other, each closed by an end mark; where clips have labels, each opens with
its label. Windows of that stream are read exactly as windows of text are. A level is a byte, so what is logged as bits
per byte is bits per sample.

Legend: N tokens of a stretch of the stream, R clips.
"""

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from pipeline.data.text import TextDataModule
from pipeline.dataset.codecs.audio import END, FIRST_LABEL, compress, decode
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError

HELD = 64  # decoded clips that are kept at hand


class WaveSplit:
    """One split as a stream of levels.

    Args:
        clips: the rows.
        labels: the class of each label's token; None where clips do not open with a label.
    """

    def __init__(self, clips: RecordSplit, labels: dict[int, int] | None = None) -> None:
        self.clips, self.labels, self.name = clips, labels, clips.name
        self._held: dict[int, np.ndarray] = {}

    @cached_property
    def edges(self) -> Int64[np.ndarray, " _"]:
        """Where each clip begins in the stream, then its end."""
        extra = 1 if self.labels is None else 2
        return np.concatenate([[0], np.cumsum(self.clips.numbers("samples") + extra)])

    @property
    def tokens(self) -> int:
        """Length of the stream."""
        return int(self.edges[-1])

    @property
    def bytes(self) -> int:
        """Samples of all clips."""
        return int(self.clips.numbers("samples").sum())

    def read(self, start: int, stop: int) -> Int64[np.ndarray, " N"]:
        """The tokens at the positions [start, stop).

        Raises:
            IndexError: the stretch is not inside [0, tokens].
        """
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"[{start}, {stop}) is not inside the {self.tokens} tokens of {self.name!r}")
        first = int(np.searchsorted(self.edges, start, "right")) - 1
        last = int(np.searchsorted(self.edges, stop, "left"))
        parts = [self._clip(row) for row in range(first, last)]
        whole = np.concatenate([np.zeros(0, np.int64), *parts])
        return whole[start - self.edges[first] :][: stop - start]

    def starts(self, start: int, stop: int) -> Int64[np.ndarray, " R"]:
        """The positions in [start, stop) at which a clip starts, ascending."""
        begins = self.edges[:-1]
        return begins[(begins >= start) & (begins < stop)]

    def _clip(self, row: int) -> Int64[np.ndarray, " N"]:
        if row not in self._held:
            if len(self._held) >= HELD:
                del self._held[next(iter(self._held))]  # the oldest
            levels = compress(decode(self.clips.value("audio", row))).astype(np.int64)
            opening = [] if self.labels is None else [FIRST_LABEL + self.labels[int(self.clips.target(row)[0])]]
            self._held[row] = np.concatenate([np.array(opening, np.int64), levels, [END]])
        return self._held[row]


class WaveDataModule(TextDataModule):
    """Raw sounds for language models: windows of `context` mu-law levels.

    Args:
        labels: open each clip with its label, so that it can be asked for.
        **text: as of a TextDataModule: dataset (made by `unroll prepare audio`), order, context, global_batch_size,
            per_device_batch_size, workers and seed.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: labels are wanted and there are none, or a split is too small for one global batch.
    """

    kind = "audio"

    def __init__(self, labels: bool = False, **text: Any) -> None:
        super().__init__(**text)
        self.labelled = labels
        if labels and "labels" not in self.dataset.manifest["audio"]:
            raise ConfigError(f"labels: the clips of {self.dataset.path} have transcripts; leave it out")

    @property
    def eos(self) -> int:
        """The end mark of a clip."""
        return END

    @property
    def facts(self) -> DataFacts:
        """Levels, end mark and labels as a vocabulary, and samples per second."""
        return DataFacts(FIRST_LABEL + len(self._classes or {}), rate=self.dataset.manifest["audio"]["rate"])

    def split(self, name: str) -> WaveSplit:
        """The split `name` as a stream of levels."""
        if name not in self._splits:
            self._splits[name] = WaveSplit(super().split(name), self._classes)
        return self._splits[name]

    @cached_property
    def _splits(self) -> dict[str, WaveSplit]:
        return {}

    @cached_property
    def _classes(self) -> dict[int, int] | None:
        """The class of each label's token."""
        if not self.labelled:
            return None
        labels = self.dataset.manifest["audio"]["labels"]
        return {self.tokenizer.token_to_id(label): number for number, label in enumerate(labels)}
