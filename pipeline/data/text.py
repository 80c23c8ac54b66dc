"""A corpus becomes batches: one stream of tokens cut into windows, read in one of three orders.

Window i predicts the stream's tokens [i T, (i + 1) T), each from the token before it; the stream opens with
an end mark. `lanes`, `windows` and `documents` differ only in the order of the windows and in whether a
document's edge resets the state.

Legend: B rows, T positions (the context).
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning
import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch.utils.data import DataLoader, Dataset

import pipeline.dataset
from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.data.plan import NO_SAMPLE, Ids, InOrder, Lanes, MicroBatches, Plan, Share, Shuffled, Slice
from pipeline.errors import ConfigError
from pipeline.stop import ignore_signals
from pipeline.tokens import TokenSplit


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
        split: TokenSplit,
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


class Cut(NamedTuple):
    """One way of reading the windows."""

    shuffled: bool
    resets: bool
    carries: bool


CUTS = {
    "lanes": Cut(shuffled=False, resets=False, carries=True),
    "windows": Cut(shuffled=True, resets=False, carries=False),
    "documents": Cut(shuffled=True, resets=True, carries=False),
}


class TextDataModule(lightning.LightningDataModule):
    """Text for language models: batches of `global_batch_size` windows of `context` tokens.

    Args:
        dataset: a directory made by `unroll prepare text`.
        cut: `lanes` reads contiguous streams and carries the hidden state from batch to batch (truncated
            backpropagation through time); `windows` shuffles fixed windows; `documents` shuffles them too
            and resets state and attention at the edges of documents.
        context: positions of a window.
        global_batch_size: windows of a global batch, over all processes and micro-batches.
        per_device_batch_size: most windows that a device takes at once; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order of shuffled windows.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: a split is too small for one global batch.
    """

    def __init__(
        self,
        dataset: Path,
        cut: Literal["lanes", "windows", "documents"] = "windows",
        context: int = 256,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if context < 1 or global_batch_size < 1:
            raise ConfigError(f"context={context} and global_batch_size={global_batch_size} must be at least 1")
        self.dataset = pipeline.dataset.Dataset.open(dataset, kind="tokens")
        self.cut, self.context, self.workers, self.seed = CUTS[cut], context, workers, seed
        self.global_batch_size, self.limit = global_batch_size, per_device_batch_size
        self.share = Share(global_batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of a training epoch."""
        return len(self.plan(self.windows("train")))

    def windows(self, name: str) -> Windows:
        """The windows of the split `name`; all of them, unless it is the training split."""
        if name not in self.dataset.splits:
            raise ConfigError(
                f"dataset {self.dataset.path} has no split {name!r}: prepare it with --{name} or --{name}-share"
            )
        split, cut = self.dataset.splits[name], self.cut
        return Windows(
            split,
            self.context,
            self.dataset.target.eos,
            resets=cut.resets,
            carries=cut.carries,
            complete=name != "train",
        )

    def plan(self, windows: Windows) -> Plan:
        """The order in which training reads the windows.

        Raises:
            ConfigError: there are fewer windows than a global batch takes.
        """
        samples, size = len(windows), self.global_batch_size
        if samples < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} holds {samples} windows of context={self.context}, "
                f"fewer than global_batch_size={size}: lower one of them or prepare more text"
            )
        return Shuffled(samples, size, self.seed) if self.cut.shuffled else Lanes(samples, size)

    def setup(self, stage: str) -> None:
        """Divide the global batch among the processes that there are."""
        trainer = self.trainer
        assert trainer is not None
        self.share = Share.of(self.global_batch_size, self.limit, trainer.world_size, trainer.global_rank)
        trainer.accumulate_grad_batches = self.share.accumulation
        for name in {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}[stage]:
            self.windows(name)

    def train_dataloader(self) -> DataLoader[TokenBatch]:
        """Training batches from where the run stands."""
        assert self.trainer is not None
        windows = self.windows("train")
        plan = self.plan(windows)
        length = len(plan) * self.share.accumulation
        limit = self.trainer.limit_train_batches
        limit = int(limit * length) if isinstance(limit, float) else limit
        position = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        return self._loader(windows, MicroBatches(plan, self.share, windows.predictions, position, limit))

    def val_dataloader(self) -> DataLoader[TokenBatch]:
        """Every validation token exactly once."""
        return self._evaluation("validation")

    def test_dataloader(self) -> DataLoader[TokenBatch]:
        """Every test token exactly once."""
        return self._evaluation("test")

    def _evaluation(self, name: str) -> DataLoader[TokenBatch]:
        windows = self.windows(name)
        size = self.global_batch_size
        plan = InOrder(len(windows), size) if self.cut.shuffled else Lanes(len(windows), size, complete=True)
        return self._loader(windows, MicroBatches(plan, self.share, windows.predictions))

    def _loader(self, windows: Windows, sampler: MicroBatches) -> DataLoader[TokenBatch]:
        return DataLoader(
            windows,
            batch_sampler=sampler,  # type: ignore[arg-type]  # slices, not lists of ids
            collate_fn=_as_it_is,
            num_workers=self.workers,
            worker_init_fn=ignore_signals,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),  # its own: the global generator stays where it is
        )


def _as_it_is(batch: Any) -> Any:
    return batch
