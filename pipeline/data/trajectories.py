"""Trajectories become batches: whole episodes, or stretches of a context out of them.

Legend: B rows, T positions, N samples, S steps of all episodes.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipeline.data.batch import TrajectoryBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.trajectories import TrajectorySplit, no_action
from pipeline.errors import ConfigError


class Stretches:
    """Stretches of the episodes of one split, read by slices of a global batch.

    Args:
        split: the episodes.
        nothing: stands for the action before the first.
        context: most steps of a stretch; None: whole episodes.
        every: steps from one stretch's begin to the next one's, within an episode.
    """

    def __init__(self, split: TrajectorySplit, nothing: np.ndarray, context: int | None, every: int) -> None:
        self.split, self.nothing, self.context, self.every = split, nothing, context, every

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def places(self) -> Ids:
        """Of each stretch: where its episode begins, among the steps of all, where itself begins, and ends (N, 3)."""
        firsts, ends = self.split.first_steps[:-1], self.split.first_steps[1:]
        if self.context is None:
            return np.stack([firsts, firsts, ends], 1)
        counts = -(-(ends - firsts) // self.every)
        first, end = np.repeat(firsts, counts), np.repeat(ends, counts)
        number = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        begin = first + number * self.every
        return np.stack([first, begin, np.minimum(begin + self.context, end)], 1)

    def predictions(self, ids: Ids) -> int:
        """Steps of these stretches; none in a row that only fills the batch."""
        _, begins, ends = self.places[ids[ids != NO_SAMPLE]].T
        return int((ends - begins).sum())

    def batch(self, ids: Ids) -> TrajectoryBatch:
        """These stretches, outside any plan."""
        return self.__getitems__(Slice(ids, self.predictions(ids), 0, 0, 0))

    def __getitems__(self, part: Slice) -> TrajectoryBatch:
        there = part.ids != NO_SAMPLE
        firsts, begins, ends = self.places[np.where(there, part.ids, 0)].T
        steps = begins[:, None] + np.arange((ends - begins).max())
        inside = (steps < ends[:, None]) & there[:, None]
        steps = np.minimum(steps, ends[:, None] - 1)  # after the end its last step again, which nobody counts
        before = self.split.actions[np.maximum(steps - 1, 0)]
        before[steps == firsts[:, None]] = self.nothing
        return TrajectoryBatch(
            torch.from_numpy(self.split.observations[steps]),
            torch.from_numpy(before),
            torch.from_numpy(self.split.returns[steps]),
            torch.from_numpy(self.split.actions[steps]),
            torch.from_numpy(inside),
            torch.from_numpy(np.ascontiguousarray(part.ids)),
            part.predictions,
            int(inside.size - inside.sum()),
            inside.size,
            part.step,
        )


class TrajectoriesDataModule(PlannedDataModule):
    """Trajectories: training in an order drawn from the seed, evaluation with each step once.

    With a context, a training sample begins at any step of an episode; an evaluation cuts episodes into pieces.

    Args:
        dataset: a directory made by `unroll prepare trajectories`.
        context: most steps of a sample; default: whole episodes.
        global_batch_size: samples in a batch, over all processes.
        per_device_batch_size: samples a device takes at once; gradient accumulation is derived. Default: all.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: the context or the batch size is below 1.
    """

    def __init__(
        self,
        dataset: Path,
        context: int | None = None,
        global_batch_size: int = 64,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="trajectories"), workers)
        if global_batch_size < 1 or (context is not None and context < 1):
            raise ConfigError(f"context={context} and global_batch_size={global_batch_size} must be at least 1")
        self.context, self.global_batch_size, self.limit, self.seed = (
            context,
            global_batch_size,
            per_device_batch_size,
            seed,
        )
        self._samples: dict[str, Stretches] = {}  # placing them is done once

    @property
    def facts(self) -> DataFacts:
        """The spaces of the environment."""
        return DataFacts(spaces=self.dataset.manifest["trajectories"]["spaces"])

    def samples(self, name: str) -> Stretches:
        """The samples of the split `name`.

        Raises:
            ConfigError: there is no such split.
        """
        if name not in self._samples:
            every = 1 if name == "train" else self.context or 1
            split = self.split(name)
            self._samples[name] = Stretches(split, no_action(split.action), self.context, every)
        return self._samples[name]

    def plan(self, samples: Stretches) -> Plan:
        """An order drawn from the seed.

        Raises:
            ConfigError: there are not enough samples for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} holds {count} samples of context={self.context}, fewer "
                f"than global_batch_size={size}: lower it, or prepare more episodes"
            )
        return Shuffled(count, size, self.seed)

    def plan_evaluation(self, samples: Stretches) -> Plan:
        """Every step exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """This process's rows of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
