"""Batches of trajectories: whole episodes, or segments of them.

Legend: B rows, T positions, N samples, S steps of all episodes.
"""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipeline.data.batch import TrajectoryBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.batch_warmup import BatchWarmup, Growth
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.trajectories import TrajectorySplit, no_action
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError


class Stretches:
    """Segments of the episodes of one split, read by slices of a global batch.

    Args:
        split: the episodes.
        nothing: value that represents the action before the first.
        context: maximum steps of a segment; None for whole episodes.
        every: steps between the starts of two segments of an episode.
    """

    def __init__(self, split: TrajectorySplit, nothing: np.ndarray, context: int | None, every: int) -> None:
        self.split, self.nothing, self.context, self.every = split, nothing, context, every

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def places(self) -> Ids:
        """Per segment, among the steps of all episodes: start of its episode, its start and its end (N, 3)."""
        firsts, ends = self.split.first_steps[:-1], self.split.first_steps[1:]
        if self.context is None:
            return np.stack([firsts, firsts, ends], 1)
        counts = -(-(ends - firsts) // self.every)
        first, end = np.repeat(firsts, counts), np.repeat(ends, counts)
        number = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        begin = first + number * self.every
        return np.stack([first, begin, np.minimum(begin + self.context, end)], 1)

    def predictions(self, ids: Ids) -> int:
        """Return the number of steps of these segments; 0 in a row that only fills the batch."""
        _, begins, ends = self.places[ids[ids != NO_SAMPLE]].T
        return int((ends - begins).sum())

    def batch(self, ids: Ids) -> TrajectoryBatch:
        """Return these segments as a batch, outside any plan."""
        return self.__getitems__(Slice(ids, self.predictions(ids), 0, 0, 0))

    def __getitems__(self, part: Slice) -> TrajectoryBatch:
        there = part.ids != NO_SAMPLE
        firsts, begins, ends = self.places[np.where(there, part.ids, 0)].T
        steps = begins[:, None] + np.arange((ends - begins).max())
        inside = (steps < ends[:, None]) & there[:, None]
        steps = np.minimum(steps, ends[:, None] - 1)  # padding repeats the last step, which `inside` excludes
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
    """Trajectories; training in an order drawn from the seed, evaluation with each step once.

    With a context, training samples start at any step of an episode, and evaluations split episodes into segments.

    Args:
        dataset: a directory made by `unroll prepare trajectories`.
        context: maximum steps of a sample; default: whole episodes.
        global_batch_size: samples per batch, over all processes.
        per_device_batch_size: maximum samples per device; gradient accumulation is derived. Default: all.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order.
        batch_warmup: smaller global batches in the first steps; None for none.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: the context or the batch size is below 1.
    """

    def __init__(
        self,
        dataset: Path | str,
        context: int | None = None,
        global_batch_size: int = 64,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        batch_warmup: BatchWarmup | None = None,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="trajectories"), workers)
        self.growth = Growth(batch_warmup, global_batch_size)
        if global_batch_size < 1 or (context is not None and context < 1):
            raise ConfigError(f"context={context} and global_batch_size={global_batch_size} must be at least 1")
        self.context, self.global_batch_size, self.limit, self.seed = (
            context,
            global_batch_size,
            per_device_batch_size,
            seed,
        )
        self._samples: dict[str, Stretches] = {}  # a cache

    @property
    def facts(self) -> DataFacts:
        """The spaces of the environment."""
        return DataFacts(spaces=self.dataset.manifest["trajectories"]["spaces"])

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit("actions")

    def samples(self, name: str) -> Stretches:
        """Return the samples of the split `name`.

        Raises:
            ConfigError: the split does not exist.
        """
        if name not in self._samples:
            every = 1 if name == "train" else self.context or 1
            split = self.split(name)
            self._samples[name] = Stretches(split, no_action(split.action), self.context, every)
        return self._samples[name]

    def plan(self, samples: Stretches) -> Plan:
        """Return an order drawn from the seed.

        Raises:
            ConfigError: there are not enough samples for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} has {count} samples of context={self.context}, fewer "
                f"than global_batch_size={size}: decrease it, or prepare more episodes"
            )
        return Shuffled(count, size, self.seed)

    def plan_evaluation(self, samples: Stretches) -> Plan:
        """Return every step exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)
