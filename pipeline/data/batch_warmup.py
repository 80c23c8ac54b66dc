"""Batch-size warm-up: the first global batches of a run are read in parts, each in a step of its own.

McCandlish et al. (2018), "An Empirical Model of Large-Batch Training": small batches suffice while the loss is high.
A part is 1/n of the rows of a global batch. So no sample is lost or read twice, every part has whole rows, and the
position of a run in its data remains one integer. All batches after the warm-up are those of the plan.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class BatchWarmup:
    """How the global batch grows: about linearly, over sizes that divide `global_batch_size`.

    Args:
        start: rows of the first global batch.
        steps: steps until the full size; a few more if the last divided batch is not complete.

    Raises:
        ValueError: a number is below 1.
    """

    start: int
    steps: int

    def __post_init__(self) -> None:
        if min(self.start, self.steps) < 1:
            raise ValueError(f"start={self.start} and steps={self.steps} must be at least 1")


class Place(NamedTuple):
    """A part of a global batch."""

    epoch: int
    batch: int
    """Index of the global batch within the epoch."""
    part: int = 0
    parts: int = 1

    def of(self, ids: Ids) -> Ids:
        """Return the rows of the part."""
        return ids[len(ids) * self.part // self.parts : len(ids) * (self.part + 1) // self.parts]


class Growth:
    """The part of a global batch that each step of a run reads.

    Args:
        warmup: how the global batch grows; None for all batches at full size.
        batch_size: rows of a global batch.

    Raises:
        ConfigError: the first size does not divide the global batch.
    """

    def __init__(self, warmup: BatchWarmup | None = None, batch_size: int = 1) -> None:
        if warmup is not None and batch_size % warmup.start:
            raise ConfigError(
                f"data.init_args.batch_warmup.start={warmup.start}: expected a divisor of "
                f"global_batch_size={batch_size}, got {warmup.start}. Set one of {_listed(_divisors(batch_size))}"
            )
        self.parts: list[int] = []  # of each divided batch
        step = 0
        while warmup is not None and step < warmup.steps:
            rows = warmup.start + (batch_size - warmup.start) * step / warmup.steps
            self.parts.append(next(parts for parts in _divisors(batch_size) if batch_size <= rows * parts))
            step += self.parts[-1]
        self.first = np.cumsum([0, *self.parts])  # step of each divided batch, and of the first whole one

    def place(self, epoch: int, step: int, per_epoch: int) -> Place:
        """Return what a step reads. Epochs of steps and of samples differ: the warm-up takes more steps per sample.

        Args:
            epoch: number of the epoch, in steps.
            step: number of the step within the epoch.
            per_epoch: steps per epoch.
        """
        if not self.parts:
            return Place(epoch, step)
        step += epoch * per_epoch
        if step >= self.first[-1]:
            return Place(*divmod(step - int(self.first[-1]) + len(self.parts), per_epoch))
        batch = int(np.searchsorted(self.first, step, "right")) - 1
        return Place(*divmod(batch, per_epoch), step - int(self.first[batch]), self.parts[batch])


def _divisors(size: int) -> list[int]:
    return [number for number in range(1, size + 1) if not size % number]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
