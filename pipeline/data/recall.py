"""Batches of recall questions: the question, then EOS tokens at the positions of the answer, which are the targets.

The inputs at the answer's positions contain no information about the answer, so it has to be remembered. The copying
task of Arjovsky, Shah and Bengio (2016), "Unitary Evolution Recurrent Neural Networks", section 5.1, counts the other
positions as well (`every_position`).

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
from pipeline.dataset.recall import BLANK
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError


class Questions:
    """The questions of one split with their answers, read by slices of a global batch.

    Args:
        split: the rows.
        eos: EOS token.
        blank: the target of all positions before the answer, which one more EOS token precedes; None for no target.
    """

    def __init__(self, split: RecordSplit, eos: int, blank: int | None = None) -> None:
        self.split, self.eos, self.blank = split, eos, blank

    def __len__(self) -> int:
        return self.split.samples

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets of these questions; 0 in a row that only fills the batch."""
        kept = ids[ids != NO_SAMPLE]
        answers = int(self.split.target_lengths[kept].sum())
        if self.blank is None:
            return answers
        rows = [self.split.row_of(int(sample)) for sample in kept]
        return answers + int((self.split.lengths("source")[rows] + 1).sum())

    def __getitems__(self, part: Slice) -> TokenBatch:
        rows = {
            row: (self.split.value("source", self.split.row_of(int(sample))), self.split.target(int(sample)))
            for row, sample in enumerate(part.ids)
            if sample != NO_SAMPLE
        }
        apart = 0 if self.blank is None else 1
        longest = max([len(question) + apart + len(answer) for question, answer in rows.values()], default=1)
        inputs = np.full((len(part.ids), max(1, longest)), self.eos, np.int64)
        targets = np.full(inputs.shape, IGNORE, np.int64)
        for row, (question, answer) in rows.items():
            begin = len(question) + apart
            inputs[row, : len(question)] = question
            targets[row, begin : begin + len(answer)] = answer
            if self.blank is not None:
                targets[row, :begin] = self.blank
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
        every_position: also predict a blank at each position before the answer, which one more EOS token precedes.
            The loss is then over all positions, as in the published copying task.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: source and target have different tokenizers, or no blank for `every_position`.
    """

    def __init__(
        self,
        dataset: Path | str,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        batch_warmup: BatchWarmup | None = None,
        every_position: bool = False,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="pairs"), workers)
        self.growth = Growth(batch_warmup, global_batch_size)
        if self.dataset.source != self.dataset.target:
            raise ConfigError(f"{dataset}: source and target have different tokenizers; prepare it with --tokenizer")
        self.global_batch_size, self.limit, self.seed = global_batch_size, per_device_batch_size, seed
        self.blank = self._blank() if every_position else None

    @property
    def chance(self) -> dict[str, float]:
        """Scores reached without memory, by name; empty if unknown."""
        found = dict(self.dataset.manifest.get("recall", {}).get("chance", {}))
        if self.blank is None or not found:
            return found
        questions, first = self.samples("train"), np.zeros(1, np.int64)
        share = int(questions.split.target_lengths[0]) / questions.predictions(first)
        return {"loss": share * float(found["loss"])}

    def _blank(self) -> int:
        blank: int | None = self.tokenizer.token_to_id(BLANK)
        if blank is None:
            raise ConfigError(
                f"data.init_args.every_position=true: expected a dataset with the token {BLANK!r}, got "
                f"{self.dataset.path}, which has none. Make one with `unroll prepare recall copy`"
            )
        return blank

    def samples(self, name: str) -> Questions:
        """Return the questions of the split `name`."""
        return Questions(self.split(name), self.dataset.target.eos, self.blank)

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
