"""Batches of recall questions: the question, then EOS tokens at the positions of the answer, which are the targets.

The inputs at the answer's positions contain no information about the answer, so it has to be remembered.

Legend: B rows, T positions of the longest question with its answer.
"""

from pathlib import Path

import numpy as np
import torch

from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.batch_warmup import BatchWarmup, Growth
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError


class Questions:
    """The questions of one split with their answers, read by slices of a global batch.

    Args:
        split: the rows.
        eos: EOS token.
    """

    def __init__(self, split: RecordSplit, eos: int) -> None:
        self.split, self.eos = split, eos

    def __len__(self) -> int:
        return self.split.samples

    def predictions(self, ids: Ids) -> int:
        """Return the number of tokens of these answers; 0 in a row that only fills the batch."""
        return int(self.split.target_lengths[ids[ids != NO_SAMPLE]].sum())

    def __getitems__(self, part: Slice) -> TokenBatch:
        nothing = np.zeros(0, np.int64)
        rows = [
            (nothing, nothing)
            if sample == NO_SAMPLE
            else (self.split.value("source", self.split.row_of(int(sample))), self.split.target(int(sample)))
            for sample in part.ids
        ]
        longest = max(1, *(len(question) + len(answer) for question, answer in rows))  # 1 if all rows only fill
        inputs = np.full((len(rows), longest), self.eos, np.int64)
        targets = np.full((len(rows), longest), IGNORE, np.int64)
        for row, (question, answer) in enumerate(rows):
            inputs[row, : len(question)] = question
            targets[row, len(question) : len(question) + len(answer)] = answer
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        read = torch.from_numpy(inputs), torch.from_numpy(targets)
        return TokenBatch(*read, None, ids, part.predictions, part.step, None)


class RecallDataModule(PlannedDataModule):
    """Questions with answers for causal networks, in batches of `global_batch_size`.

    Args:
        dataset: a directory made by `unroll prepare recall` (except adding), or by `unroll prepare pairs` with one
            tokenizer for both sides.
        global_batch_size: questions per global batch, over all processes and micro-batches.
        per_device_batch_size: maximum questions per device; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order.
        batch_warmup: smaller global batches in the first steps; None for none.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: source and target have different tokenizers.
    """

    def __init__(
        self,
        dataset: Path | str,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        batch_warmup: BatchWarmup | None = None,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="pairs"), workers)
        self.growth = Growth(batch_warmup, global_batch_size)
        if self.dataset.source != self.dataset.target:
            raise ConfigError(f"{dataset}: source and target have different tokenizers; prepare it with --tokenizer")
        self.global_batch_size, self.limit, self.seed = global_batch_size, per_device_batch_size, seed

    @property
    def chance(self) -> dict[str, float]:
        """Scores reached without memory, by name; empty if unknown."""
        return dict(self.dataset.manifest.get("recall", {}).get("chance", {}))

    def samples(self, name: str) -> Questions:
        """Return the questions of the split `name`."""
        return Questions(self.split(name), self.dataset.target.eos)

    def plan(self, samples: Questions) -> Plan:
        """Return an order drawn from the seed.

        Raises:
            ConfigError: there are not enough questions for one global batch.
        """
        if len(samples) < self.global_batch_size:
            raise ConfigError(
                f"the training split of {self.dataset.path} has {len(samples)} questions, fewer than "
                f"global_batch_size={self.global_batch_size}: decrease it"
            )
        return Shuffled(len(samples), self.global_batch_size, self.seed)

    def plan_evaluation(self, samples: Questions) -> Plan:
        """Return every question exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
