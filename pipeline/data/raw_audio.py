"""Batches of raw audio as sequences of mu-law levels, for autoregressive models.

The clips of a split are concatenated into a stream. Each ends with an EOS token and can start with its label. Windows
of the stream are read like windows of text. A level is a byte, so bits per byte are bits per sample.

Legend: N tokens of a part of the stream, R clips.
"""

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt16

from pipeline.data.text import TextDataModule
from pipeline.dataset.codecs.audio import END, FIRST_LABEL, compress, decode
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.records import RecordSplit
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError

HELD = 1 << 25  # levels of decoded clips in memory, of two bytes each


class WaveSplit:
    """One split as a stream of levels.

    Args:
        clips: the rows.
        labels: class index by the token of a label; None if clips do not start with a label.
    """

    def __init__(self, clips: RecordSplit, labels: dict[int, int] | None = None) -> None:
        self.clips, self.labels, self.name = clips, labels, clips.name
        self._held: dict[int, UInt16[np.ndarray, " _"]] = {}
        self._levels = 0  # of all that are held

    @cached_property
    def edges(self) -> Int64[np.ndarray, " _"]:
        """Start of each clip in the stream, and the end."""
        extra = 1 if self.labels is None else 2
        return np.concatenate([[0], np.cumsum(self.clips.numbers("samples") + extra)])

    @property
    def tokens(self) -> int:
        """Number of tokens of the stream."""
        return int(self.edges[-1])

    @property
    def bytes(self) -> int:
        """Number of samples of all clips."""
        return int(self.clips.numbers("samples").sum())

    def read(self, start: int, stop: int) -> Int64[np.ndarray, " N"]:
        """Return the tokens at the positions [start, stop).

        Raises:
            IndexError: the range is not inside [0, tokens].
        """
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"[{start}, {stop}) is not inside the {self.tokens} tokens of {self.name!r}")
        first = int(np.searchsorted(self.edges, start, "right")) - 1
        last = int(np.searchsorted(self.edges, stop, "left"))
        parts = [self._clip(row) for row in range(first, last)]
        whole = np.concatenate([np.zeros(0, np.uint16), *parts])
        return whole[start - self.edges[first] :][: stop - start].astype(np.int64)

    def starts(self, start: int, stop: int) -> Int64[np.ndarray, " R"]:
        """Return the positions in [start, stop) at which a clip starts, ascending."""
        begins = self.edges[:-1]
        return begins[(begins >= start) & (begins < stop)]

    def _clip(self, row: int) -> UInt16[np.ndarray, " N"]:
        if row not in self._held:
            levels = compress(decode(self.clips.value("audio", row))).astype(np.uint16)
            opening = [] if self.labels is None else [FIRST_LABEL + self.labels[int(self.clips.target(row)[0])]]
            self._held[row] = np.concatenate([np.array(opening, np.uint16), levels, np.array([END], np.uint16)])
            self._levels += len(self._held[row])
            while self._levels > HELD and len(self._held) > 1:
                self._levels -= len(self._held.pop(next(iter(self._held))))  # the oldest
        return self._held[row]


class WaveDataModule(TextDataModule):
    """Raw audio for language models: windows of `context` mu-law levels.

    Args:
        labels: start each clip with its label, to allow class-conditional generation.
        **text: dataset (made by `unroll prepare audio`), order, context, global_batch_size, per_device_batch_size,
            workers and seed, as for a TextDataModule.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: labels are required but missing, or a split is too small for one global batch.
    """

    kind = "audio"

    def __init__(self, labels: bool = False, **text: Any) -> None:
        super().__init__(**text)
        self.labelled = labels
        if labels and "labels" not in self.dataset.manifest["audio"]:
            raise ConfigError(f"labels=true: the clips of {self.dataset.path} have transcripts; use labels=false")

    @property
    def eos(self) -> int:
        """The EOS token of a clip."""
        return END

    @property
    def facts(self) -> DataFacts:
        """The vocabulary of levels, EOS token and labels, and samples per second."""
        return DataFacts(FIRST_LABEL + len(self._classes or {}), rate=self.dataset.manifest["audio"]["rate"])

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit("seconds of audio", 1 / self.dataset.manifest["audio"]["rate"])

    def split(self, name: str) -> WaveSplit:
        """Return the split `name` as a stream of levels."""
        if name not in self._splits:
            self._splits[name] = WaveSplit(super().split(name), self._classes)
        return self._splits[name]

    @cached_property
    def _splits(self) -> dict[str, WaveSplit]:
        return {}

    @cached_property
    def _classes(self) -> dict[int, int] | None:
        """Class index by the token of a label."""
        if not self.labelled:
            return None
        labels, vocabulary = self.dataset.manifest["audio"]["labels"], self.tokenizer.get_vocab()
        return {vocabulary[label]: number for number, label in enumerate(labels)}
