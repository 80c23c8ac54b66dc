"""A corpus becomes batches: one stream of tokens cut into windows, read in one of three orders.

Window i predicts the stream's tokens [i T, (i + 1) T), each from the token before it; the stream opens with
an end mark. `lanes`, `windows` and `documents` differ only in the order of the windows and in whether a
document's edge resets the state.

Legend: B rows, T positions (the context).
"""

from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch.utils.data import Dataset

import pipeline.dataset.manifest
from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.data.batch_plan import NO_SAMPLE, Contiguous, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.module import PlannedDataModule
from pipeline.errors import ConfigError


@runtime_checkable
class Stream(Protocol):
    """A split read as one stream of tokens: a `TokenSplit`, or another thing that is like one."""

    name: str

    @property
    def tokens(self) -> int:
        """Length of the stream."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """The tokens at the positions [start, stop)."""

    def starts(self, start: int, stop: int) -> np.ndarray:
        """The positions in [start, stop) at which a document starts, ascending."""


class Windows(Dataset[TokenBatch]):
    """The windows of one split, read by slices of a global batch.

    Args:
        split: the stream.
        context: positions of a window, T.
        eos: the end mark, which the stream's first position reads.
        resets: mark the positions at which a document starts.
        carries: the state is carried from one window of a lane to the next.
        complete: count the last, shorter window too, its rest filled with IGNORE.
    """

    def __init__(
        self,
        split: Stream,
        context: int,
        eos: int,
        *,
        resets: bool = False,
        carries: bool = False,
        complete: bool = False,
    ) -> None:
        self.split, self.context, self.eos, self.resets, self.carries = split, context, eos, resets, carries
        self.samples = -(-split.tokens // context) if complete else split.tokens // context

    def __len__(self) -> int:
        return self.samples

    def predictions(self, ids: Ids) -> int:
        """Targets in these windows: T each, fewer in the last, none in a row that only fills the batch."""
        ids = ids[ids != NO_SAMPLE]
        return int(np.clip(self.split.tokens - ids * self.context, 0, self.context).sum())

    def __getitems__(self, part: Slice) -> TokenBatch:
        rows, width = len(part.ids), self.context
        inputs = np.full((rows, width), self.eos, np.int64)
        targets = np.full((rows, width), IGNORE, np.int64)
        for row, sample in enumerate(part.ids):
            if sample == NO_SAMPLE:
                continue
            first = int(sample) * width
            last = min(first + width, self.split.tokens)
            tokens = self.split.read(max(first - 1, 0), last)
            targets[row, : last - first] = tokens[len(tokens) - (last - first) :]
            # the input is the token before: the end mark before the first one
            inputs[row, 1 : last - first] = targets[row, : last - first - 1]
            if first > 0:
                inputs[row, 0] = tokens[0]
        return TokenBatch(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            torch.from_numpy(self._starts(part, inputs)) if self.resets else None,
            torch.from_numpy(np.ascontiguousarray(part.ids)),
            part.predictions,
            part.step,
            part.slot if self.carries else None,
        )

    def _starts(self, part: Slice, inputs: Int64[np.ndarray, "B T"]) -> Bool[np.ndarray, "B T"]:
        """True where a document starts."""
        starts = np.zeros(inputs.shape, np.bool_)
        for row in np.flatnonzero((inputs == self.eos).any(1)):  # no start but after an end mark
            if (sample := int(part.ids[row])) != NO_SAMPLE:
                first = sample * self.context
                last = min(first + self.context, self.split.tokens)
                starts[row, self.split.starts(first, last) - first] = True
        return starts


class Order(NamedTuple):
    """How the windows of a corpus are ordered and what they carry over."""

    shuffled: bool
    resets: bool
    carries: bool


ORDERS = {
    "contiguous": Order(shuffled=False, resets=False, carries=True),
    "shuffled": Order(shuffled=True, resets=False, carries=False),
    "documents": Order(shuffled=True, resets=True, carries=False),
}


class TextDataModule(PlannedDataModule):
    """Text for language models: batches of `global_batch_size` windows of `context` tokens.

    Args:
        dataset: a directory made by `unroll prepare text`.
        order: `contiguous` reads parallel streams and carries the hidden state from batch to batch (truncated
            backpropagation through time); `shuffled` draws fixed windows in random order; `documents` does too,
            and resets state and attention at document boundaries.
        context: positions of a window.
        global_batch_size: windows of a global batch, over all processes and micro-batches.
        per_device_batch_size: most windows that a device takes at once; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order of shuffled windows.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: a split is too small for one global batch.
    """

    kind = "tokens"  # of the dataset

    def __init__(
        self,
        dataset: Path,
        order: Literal["contiguous", "shuffled", "documents"] = "shuffled",
        context: int = 256,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        if context < 1 or global_batch_size < 1:
            raise ConfigError(f"context={context} and global_batch_size={global_batch_size} must be at least 1")
        super().__init__(pipeline.dataset.manifest.Dataset.open(dataset, kind=self.kind), workers)
        self.order, self.context, self.seed = ORDERS[order], context, seed
        self.global_batch_size, self.limit = global_batch_size, per_device_batch_size

    @property
    def eos(self) -> int:
        """The end mark, which the stream's first position reads."""
        return self.dataset.target.eos

    def samples(self, name: str) -> Windows:
        """The windows of the split `name`; all of them, unless it is the training split."""
        how = {"resets": self.order.resets, "carries": self.order.carries, "complete": name != "train"}
        return Windows(self.split(name), self.context, self.eos, **how)

    def plan(self, samples: Windows) -> Plan:
        """The order in which training reads the windows.

        Raises:
            ConfigError: there are fewer windows than a global batch takes.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} holds {count} windows of context={self.context}, "
                f"fewer than global_batch_size={size}: lower one of them or prepare more text"
            )
        return Shuffled(count, size, self.seed) if self.order.shuffled else Contiguous(count, size)

    def plan_evaluation(self, samples: Windows) -> Plan:
        """Every token exactly once."""
        count, size = len(samples), self.global_batch_size
        return InOrder(count, size) if self.order.shuffled else Contiguous(count, size, complete=True)

    def divide(self, world_size: int, rank: int) -> Share:
        """This process's rows of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
