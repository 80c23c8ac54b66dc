"""Batches of text: one stream of tokens split into windows, read in one of three orders.

Window i predicts the stream's tokens [i T, (i + 1) T), each from the token before it; the stream starts with an EOS
token. With random offsets all windows of an epoch are shifted by the same number of tokens, smaller than T. The orders
`contiguous`, `shuffled` and `documents` differ only in the order of the windows and in whether the state is carried, or
reset at the start of a document.

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
from pipeline.data.batch_plan import NO_SAMPLE, Contiguous, Ids, InOrder, Plan, Share, Shuffled, Slice, permute
from pipeline.data.batch_warmup import BatchWarmup, Growth
from pipeline.data.documents import Documents
from pipeline.data.module import PlannedDataModule
from pipeline.errors import ConfigError


@runtime_checkable
class Stream(Protocol):
    """A split read as one stream of tokens, such as a `TokenSplit`."""

    name: str

    @property
    def tokens(self) -> int:
        """Number of tokens of the stream."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the tokens at the positions [start, stop)."""

    def starts(self, start: int, stop: int) -> np.ndarray:
        """Return the positions in [start, stop) at which a document starts, ascending."""


class Windows(Dataset[TokenBatch]):
    """The windows of one split, read by slices of a global batch.

    Args:
        split: the stream.
        context: positions per window, T.
        eos: EOS token, the input of the stream's first position.
        resets: mark the positions at which a document starts.
        carries: carry the state from one window of a row to the next.
        complete: include the last, shorter window, padded with IGNORE.
        seed: shift all windows of an epoch by an offset in [0, T) drawn from this seed; None for no offset.
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
        seed: int | None = None,
    ) -> None:
        self.split, self.context, self.eos, self.resets, self.carries = split, context, eos, resets, carries
        self.seed = seed
        longest_offset = 0 if seed is None else context - 1
        self.samples = -(-split.tokens // context) if complete else (split.tokens - longest_offset) // context

    def __len__(self) -> int:
        return self.samples

    def offset(self, epoch: int) -> int:
        """Return the stream's position at which the first window of an epoch starts."""
        return 0 if self.seed is None else int(permute(np.zeros(1, np.int64), self.context, (self.seed, epoch))[0])

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets: T per window, fewer in the last, 0 in a row that only fills the batch."""
        ids = ids[ids != NO_SAMPLE]
        return int(np.clip(self.split.tokens - ids * self.context, 0, self.context).sum())

    def __getitems__(self, part: Slice) -> TokenBatch:
        rows, width, offset = len(part.ids), self.context, self.offset(part.epoch)
        inputs = np.full((rows, width), self.eos, np.int64)
        targets = np.full((rows, width), IGNORE, np.int64)
        for row, sample in enumerate(part.ids):
            if sample == NO_SAMPLE:
                continue
            first = offset + int(sample) * width
            last = min(first + width, self.split.tokens)
            tokens = self.split.read(max(first - 1, 0), last)
            targets[row, : last - first] = tokens[len(tokens) - (last - first) :]
            # The input is the previous token; before the first token it is EOS.
            inputs[row, 1 : last - first] = targets[row, : last - first - 1]
            if first > 0:
                inputs[row, 0] = tokens[0]
        return TokenBatch(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            Documents.of(self._starts(part, inputs)) if self.resets else None,
            torch.from_numpy(np.ascontiguousarray(part.ids)),
            part.predictions,
            part.step,
            part.slot if self.carries else None,
        )

    def _starts(self, part: Slice, inputs: Int64[np.ndarray, "B T"]) -> Bool[np.ndarray, "B T"]:
        """Return a mask that is True where a document starts."""
        starts, offset = np.zeros(inputs.shape, np.bool_), self.offset(part.epoch)
        for row in np.flatnonzero((inputs == self.eos).any(1)):  # documents start only after an EOS token
            if (sample := int(part.ids[row])) != NO_SAMPLE:
                first = offset + sample * self.context
                last = min(first + self.context, self.split.tokens)
                starts[row, self.split.starts(first, last) - first] = True
        return starts


class Order(NamedTuple):
    """An order of the windows, and the treatment of the state."""

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
        order: `contiguous` reads parallel streams and carries the state from batch to batch (truncated backpropagation
            through time); `shuffled` draws fixed windows in random order; `documents` does too, and resets state and
            attention at document boundaries.
        context: positions per window.
        global_batch_size: windows per global batch, over all processes and micro-batches.
        per_device_batch_size: maximum windows per device; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order of shuffled windows and of the offsets.
        random_offset: shift the training windows by another number of tokens, 0 to context - 1, in each epoch, so that
            a token is predicted from contexts of different lengths.
        batch_warmup: smaller global batches in the first steps; None for none.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: a split is too small for one global batch.
    """

    kind = "tokens"  # kind of the dataset

    def __init__(
        self,
        dataset: Path | str,
        order: Literal["contiguous", "shuffled", "documents"] = "shuffled",
        context: int = 256,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        random_offset: bool = False,
        batch_warmup: BatchWarmup | None = None,
    ) -> None:
        if context < 1 or global_batch_size < 1:
            raise ConfigError(f"context={context} and global_batch_size={global_batch_size} must be at least 1")
        super().__init__(pipeline.dataset.manifest.Dataset.open(dataset, kind=self.kind), workers)
        self.order, self.context, self.seed, self.random_offset = ORDERS[order], context, seed, random_offset
        self.global_batch_size, self.limit = global_batch_size, per_device_batch_size
        if batch_warmup is not None and self.order.carries:
            raise ConfigError(
                f"data.init_args.batch_warmup: expected order=shuffled or documents, got {order}, in which every batch "
                "continues the rows of the one before. Set batch_warmup to null, or another order"
            )
        self.growth = Growth(batch_warmup, global_batch_size)

    @property
    def eos(self) -> int:
        """The EOS token, which is the input of the stream's first position."""
        return self.dataset.target.eos

    def samples(self, name: str) -> Windows:
        """Return the windows of the split `name`; the training split drops an incomplete last window."""
        how = {"resets": self.order.resets, "carries": self.order.carries, "complete": name != "train"}
        seed = self.seed if self.random_offset and name == "train" else None
        return Windows(self.split(name), self.context, self.eos, seed=seed, **how)

    def plan(self, samples: Windows) -> Plan:
        """Return the order in which training reads the windows.

        Raises:
            ConfigError: there are not enough windows for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} has {count} windows of context={self.context}, "
                f"fewer than global_batch_size={size}: decrease one of them or prepare more text"
            )
        return Shuffled(count, size, self.seed) if self.order.shuffled else Contiguous(count, size)

    def plan_evaluation(self, samples: Windows) -> Plan:
        """Return every token exactly once."""
        count, size = len(samples), self.global_batch_size
        return InOrder(count, size) if self.order.shuffled else Contiguous(count, size, complete=True)

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
