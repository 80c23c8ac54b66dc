"""Texts with their targets become batches: pairs of similar length together, within a budget of tokens.

Legend: B rows, S positions of a source, T positions of a target.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.batch import IGNORE, PairBatch
from pipeline.data.batch_plan import NO_SAMPLE, Bucketed, Ids, Plan, Share, Slice
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError
from pipeline.evaluation.plots.attention import against
from pipeline.generation.text_stream import written


class Pairs:
    """The pairs of one split, read by slices of a global batch.

    Args:
        split: the rows.
        eos: the end mark of targets.
        source_eos: the end mark of sources.
    """

    def __init__(self, split: RecordSplit, eos: int, source_eos: int) -> None:
        self.split, self.eos, self.source_eos = split, eos, source_eos

    def __len__(self) -> int:
        return self.split.samples

    @property
    def lengths(self) -> Ids:
        """Positions that each pair takes: of its source or its target, whichever is longer, with the end mark."""
        counts = np.diff(self.split.first_samples)
        sources = np.repeat(self.split.lengths("source"), counts)
        longer: Ids = np.maximum(sources, self.split.target_lengths) + 1
        return longer

    def predictions(self, ids: Ids) -> int:
        """Targets in these pairs, with their end marks; none in a row that only fills the batch."""
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
        """Tokens of a source and its end mark, which alone stands in a row that only fills the batch."""
        tokens = [] if sample == NO_SAMPLE else self.split.value("source", self.split.row_of(sample))
        return np.append(tokens, self.source_eos).astype(np.int64)


def predictions(split: RecordSplit, ids: Ids) -> int:
    """Tokens of these samples' targets, with their end marks."""
    ids = ids[ids != NO_SAMPLE]
    return int(split.target_lengths[ids].sum()) + len(ids)


def decoder_side(split: RecordSplit, ids: Ids, eos: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) of samples, as `PairBatch` describes them."""
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
    """Rows of different lengths as one matrix (B, S), and where there is something."""
    lengths = np.array([len(row) for row in rows])
    keep = np.arange(lengths.max()) < lengths[:, None]
    matrix = np.full(keep.shape, filling, np.int64)
    matrix[keep] = np.concatenate(rows)
    return torch.from_numpy(matrix), torch.from_numpy(keep)


class BudgetedDataModule(PlannedDataModule):
    """Samples of similar length together, within a budget of positions: tokens, samples of sound, ...

    Args:
        dataset: the dataset.
        global_batch_tokens: most positions of a global batch, padding included: rows times the longest one.
        per_device_batch_tokens: about as many a device takes at once; gradient accumulation is derived.
        workers: loader processes.
        seed: decides the order.

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
        self._plans: dict[tuple[str, int | None], Bucketed] = {}  # sorting is done once

    def plan(self, samples: Any) -> Plan:
        """Buckets in an order drawn from the seed."""
        return self._planned(samples, self.seed)

    def plan_evaluation(self, samples: Any) -> Plan:
        """Every sample exactly once, shortest first."""
        return self._planned(samples, None)

    def divide(self, world_size: int, rank: int) -> Share:
        """This process's rows of a global batch."""
        return Share.of_budget(self.budget, self.limit, world_size, rank)

    def too_long(self, longest: int, name: str) -> str:
        """What is said of a sample that does not fit into the budget."""
        return (
            f"the longest sample of {self.dataset.path} ({name}) takes {longest} positions, more than "
            f"global_batch_tokens={self.budget}: raise it, or prepare with --max-length {self.budget - 1}"
        )

    def _planned(self, samples: Any, seed: int | None) -> Bucketed:
        name = samples.split.name
        if (name, seed) not in self._plans:
            lengths = samples.lengths
            if seed is not None and (longest := int(lengths.max(initial=0))) > self.budget:
                raise ConfigError(self.too_long(longest, name))
            self._plans[name, seed] = Bucketed.of(lengths, self.budget, seed)
        return self._plans[name, seed]


class PairsDataModule(BudgetedDataModule):
    """Pairs of texts for encoders and decoders, in batches of at most `global_batch_tokens` positions.

    Args:
        dataset: a directory made by `unroll prepare pairs`.
        global_batch_tokens: most positions of a global batch, padding included: pairs times the longest source or
            target among them.
        per_device_batch_tokens: about as many a device takes at once; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: a pair of the training split is longer than the budget.
    """

    shown = "text"

    def __init__(
        self,
        dataset: Path,
        global_batch_tokens: int = 4096,
        per_device_batch_tokens: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        opened = Dataset.open(dataset, kind="pairs")
        super().__init__(opened, global_batch_tokens, per_device_batch_tokens, workers, seed)

    def samples(self, name: str) -> Pairs:
        """The pairs of the split `name`."""
        assert self.dataset.source is not None
        return Pairs(self.split(name), self.dataset.target.eos, self.dataset.source.eos)

    def show(self, name: str, count: int) -> tuple[tuple[Tensor, ...], list[str]]:
        """The first sources of a split as a batch's `source`, and as they were written."""
        samples = self.samples(name)
        rows = range(min(count, samples.split.rows))
        ids = samples.split.first_samples[list(rows)]
        batch = samples.__getitems__(Slice(ids, 0, 0, 0, 0))
        return batch.source, [samples.split.value(self.shown, row) for row in rows]

    def picture(self, source: tuple[Tensor, ...], tokens: Sequence[int], looks: Float[np.ndarray, "T S"]) -> Any:
        """Where each token of a text looked at a source, drawn.

        Args:
            source: a batch's `source` of one row.
            tokens: the text.
            looks: the share that each token gave to each of the source.
        """
        from tokenizers import Tokenizer

        assert self.dataset.source is not None
        reader = Tokenizer.from_file(str(self.dataset.source.file))
        read = source[0][source[1]].tolist()
        return against(written(reader, read), written(self.tokenizer, tokens), looks)
