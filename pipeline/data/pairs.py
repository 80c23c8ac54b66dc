"""Batches of text pairs of similar length, within a budget of tokens.

Legend: B rows, S positions of a source, T positions of a target.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.batch import IGNORE, PairBatch
from pipeline.data.batch_plan import NO_SAMPLE, Bucketed, Ids, Plan, Share, Slice
from pipeline.data.module import PlannedDataModule, SplitSamples
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError
from pipeline.evaluation.plots.attention import against
from pipeline.generation.text_stream import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class MeasuredSamples(SplitSamples, Protocol):
    """Samples of records whose lengths are known."""

    split: RecordSplit

    @property
    def lengths(self) -> Ids:
        """The number of positions of each sample."""


class Pairs:
    """The pairs of one split, read by slices of a global batch.

    Args:
        split: the rows.
        eos: EOS token of the targets.
        source_eos: EOS token of the sources.
    """

    def __init__(self, split: RecordSplit, eos: int, source_eos: int) -> None:
        self.split, self.eos, self.source_eos = split, eos, source_eos

    def __len__(self) -> int:
        return self.split.samples

    @property
    def lengths(self) -> Ids:
        """The positions of each pair: the longer of source and target, with the EOS token."""
        counts = np.diff(self.split.first_samples)
        sources = np.repeat(self.split.lengths("source"), counts)
        longer: Ids = np.maximum(sources, self.split.target_lengths) + 1
        return longer

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets in these pairs, with EOS tokens; 0 in a row that only fills the batch."""
        return predictions(self.split, ids)

    def __getitems__(self, part: Slice) -> PairBatch:
        sources = [self._source(int(sample)) for sample in part.ids]
        tokens, keep = padded(sources, self.source_eos)
        inputs, targets = decoder_side(self.split, part.ids, self.eos)
        positions = keep.numel() + targets.numel()
        filled = int(keep.sum()) + int((targets != IGNORE).sum())
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        return PairBatch(
            (tokens, keep), inputs, targets, ids, part.predictions, positions - filled, positions, part.step
        )

    def _source(self, sample: int) -> np.ndarray:
        """Return the tokens of a source and EOS; only EOS in a row that only fills the batch."""
        tokens = [] if sample == NO_SAMPLE else self.split.value("source", self.split.row_of(sample))
        return np.append(tokens, self.source_eos).astype(np.int64)


def predictions(split: RecordSplit, ids: Ids) -> int:
    """Return the number of tokens of these samples' targets, with EOS tokens."""
    ids = ids[ids != NO_SAMPLE]
    return int(split.target_lengths[ids].sum()) + len(ids)


def decoder_side(split: RecordSplit, ids: Ids, eos: int) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets (B, T) of samples, as described in `PairBatch`."""
    rows = [np.zeros(0, np.int64) if sample == NO_SAMPLE else split.target(int(sample)) for sample in ids]
    longest = max(map(len, rows)) + 1
    inputs = np.full((len(rows), longest), eos, np.int64)
    targets = np.full((len(rows), longest), IGNORE, np.int64)
    for row, (sample, tokens) in enumerate(zip(ids, rows, strict=True)):
        inputs[row, 1 : 1 + len(tokens)] = targets[row, : len(tokens)] = tokens
        if sample != NO_SAMPLE:
            targets[row, len(tokens)] = eos
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def padded(rows: Sequence[np.ndarray], filling: int) -> tuple[Tensor, Tensor]:
    """Return rows of different lengths as a padded matrix (B, S), and the mask of valid positions."""
    lengths = np.array([len(row) for row in rows])
    keep = np.arange(lengths.max()) < lengths[:, None]
    matrix = np.full(keep.shape, filling, np.int64)
    matrix[keep] = np.concatenate(rows)
    return torch.from_numpy(matrix), torch.from_numpy(keep)


class BudgetedDataModule(PlannedDataModule):
    """Batches of samples of similar length, within a budget of positions: tokens, audio samples, and so on.

    Args:
        dataset: the dataset.
        global_batch_tokens: maximum positions of a global batch with padding: number of rows times the longest row.
        per_device_batch_tokens: approximate maximum positions per device; gradient accumulation is derived.
        workers: loader processes.
        seed: seed of the order.

    Raises:
        ConfigError: a sample of the training split is longer than the budget.
    """

    def __init__(
        self, dataset: Dataset, global_batch_tokens: int, per_device_batch_tokens: int | None, workers: int, seed: int
    ) -> None:
        super().__init__(dataset, workers)
        if global_batch_tokens < 1:
            raise ConfigError(f"global_batch_tokens={global_batch_tokens} must be at least 1")
        self.budget, self.limit, self.seed = global_batch_tokens, per_device_batch_tokens, seed
        self._plans: dict[tuple[str, int | None], Bucketed] = {}  # a cache, since sorting is slow

    def check_longest(self, longest: int, name: str) -> None:
        """Check the longest sample of a training split.

        Args:
            longest: its positions.
            name: the split.

        Raises:
            ConfigError: it exceeds the budget.
        """
        if longest > self.budget:
            raise ConfigError(self.too_long(longest, name))

    def plan(self, samples: MeasuredSamples) -> Plan:
        """Return buckets in an order drawn from the seed."""
        return self._planned(samples, self.seed)

    def plan_evaluation(self, samples: MeasuredSamples) -> Plan:
        """Return every sample exactly once, shortest first."""
        return self._planned(samples, None)

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        return Share.of_budget(self.budget, self.limit, world_size, rank)

    def too_long(self, longest: int, name: str) -> str:
        """Return the error message for a sample that exceeds the budget."""
        return (
            f"the longest sample of {self.dataset.path} ({name}) takes {longest} positions, more than "
            f"global_batch_tokens={self.budget}: increase it, or prepare with --max-length {self.budget - 1}"
        )

    def _planned(self, samples: MeasuredSamples, seed: int | None) -> Bucketed:
        name = samples.split.name
        if (name, seed) not in self._plans:
            lengths = samples.lengths
            if seed is not None:
                self.check_longest(int(lengths.max(initial=0)), name)
            self._plans[name, seed] = Bucketed.of(lengths, self.budget, seed)
        return self._plans[name, seed]


class PairsDataModule(BudgetedDataModule):
    """Text pairs for encoder-decoders, in batches of at most `global_batch_tokens` positions.

    Args:
        dataset: a directory made by `unroll prepare pairs`.
        global_batch_tokens: maximum positions of a global batch with padding: number of pairs times the longest
            source or target.
        per_device_batch_tokens: approximate maximum positions per device; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: a pair of the training split is longer than the budget.
    """

    shown = "text"

    def __init__(
        self,
        dataset: Path | str,
        global_batch_tokens: int = 4096,
        per_device_batch_tokens: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        opened = Dataset.open(dataset, kind="pairs")
        super().__init__(opened, global_batch_tokens, per_device_batch_tokens, workers, seed)

    def samples(self, name: str) -> Pairs:
        """Return the pairs of the split `name`."""
        assert self.dataset.source is not None
        return Pairs(self.split(name), self.dataset.target.eos, self.dataset.source.eos)

    def show(self, name: str, count: int) -> tuple[tuple[Tensor, ...], list[str]]:
        """Return the first sources of a split as a batch's `source`, and their texts."""
        samples = self.samples(name)
        rows = range(min(count, samples.split.rows))
        ids = samples.split.first_samples[list(rows)]
        batch = samples.__getitems__(Slice(ids, 0, 0, 0, 0))
        return batch.source, [samples.split.value(self.shown, row) for row in rows]

    def picture(self, source: tuple[Tensor, ...], tokens: Sequence[int], looks: Float[np.ndarray, "T S"]) -> "Figure":
        """Plot the attention of each token of a text over a source.

        Args:
            source: a batch's `source` of one row.
            tokens: the text.
            looks: attention weights of each token over the tokens of the source.
        """
        from tokenizers import Tokenizer

        assert self.dataset.source is not None
        reader = Tokenizer.from_file(str(self.dataset.source.file))
        read = source[0][source[1]].tolist()
        return against(written(reader, read), written(self.tokenizer, tokens), looks)
