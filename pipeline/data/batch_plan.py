"""The plan of batches: global batch k as a pure function of (number of samples, seed, epoch, k).

The plan does not depend on the number of processes. Rank r of W takes its slice of every global batch. The position
of a run in its data is therefore one integer, resuming costs O(1), and any number of processes sees the same batches
in the same order.

Legend: G samples in a global batch, W processes, A micro-batches per step (gradient accumulation).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.batch_warmup import Growth
from pipeline.errors import ConfigError

Ids = NDArray[np.int64]
TOGETHER = 64  # batches whose places are permuted in one call, which costs about as much as one batch
NO_SAMPLE = -1  # the id of a row that only fills the last batch of an evaluation


@dataclass(frozen=True)
class Plan(ABC):
    """The order of samples 0 .. samples-1 in global batches of at most `batch_size`."""

    samples: int
    batch_size: int

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of global batches per epoch."""

    @abstractmethod
    def batch(self, epoch: int, k: int) -> Ids:
        """Return the ids of global batch k, shape (at most G,); NO_SAMPLE in rows that only fill the batch."""


@dataclass(frozen=True)
class Shuffled(Plan):
    """Every sample at most once per epoch, in an order drawn from the seed; the remainder differs by epoch."""

    seed: int

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def batch(self, epoch: int, k: int) -> Ids:
        first = k // TOGETHER * TOGETHER
        places = first * self.batch_size, min(first + TOGETHER, len(self)) * self.batch_size
        ids = _permuted(*places, self.samples, (self.seed, epoch))
        return ids[(k - first) * self.batch_size :][: self.batch_size].copy()


@dataclass(frozen=True)
class InOrder(Plan):
    """Every sample exactly once, in order; the last batch is filled with NO_SAMPLE."""

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def batch(self, epoch: int, k: int) -> Ids:
        ids = np.arange(k * self.batch_size, (k + 1) * self.batch_size)
        return np.where(ids < self.samples, ids, NO_SAMPLE)


@dataclass(frozen=True)
class Contiguous(Plan):
    """G contiguous streams read in parallel: row i of batch k+1 continues row i of batch k.

    With `complete`, the last stream is filled so that every sample is read exactly once (evaluation). Without it,
    the remainder of fewer than G samples is not read (training).
    """

    complete: bool = False

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size) if self.complete else self.samples // self.batch_size

    def batch(self, epoch: int, k: int) -> Ids:
        ids = np.arange(self.batch_size) * len(self) + k
        return np.where(ids < self.samples, ids, NO_SAMPLE)


@dataclass(frozen=True, eq=False)
class Bucketed(Plan):
    """Batches of samples of similar length, each sample exactly once per epoch; created by `Bucketed.of`."""

    order: Ids
    """All samples, sorted by bucket."""
    first_sample: Ids
    """Start of each bucket in `order`, and the end."""
    first_batch: Ids
    """Number of each bucket's first batch, and the number of batches."""
    seed: int | None

    @classmethod
    def of(cls, lengths: Ids, budget: int, seed: int | None) -> "Bucketed":
        """Return a plan whose batches, as number of samples times longest sample, stay within a budget.

        Args:
            lengths: length of each sample; one above the budget is a batch of its own.
            budget: maximum positions of a batch, with padding.
            seed: seed of the order; None for shortest first.
        """
        order = np.argsort(lengths, kind="stable")
        # Edges at every length up to 10, then in steps of a tenth.
        edges = np.unique(np.ceil(1.1 ** np.arange(1, 400)).astype(np.int64))
        bucket = np.searchsorted(edges, lengths[order])
        first = np.flatnonzero(np.diff(bucket, prepend=-1))
        after = np.append(first, len(order))[1:]
        rows = np.maximum(budget // np.maximum(lengths[order][after - 1], 1), 1)
        batches = -(-(after - first) // rows)
        largest = int(np.max(-(-(after - first) // batches), initial=0))
        numbers = np.concatenate([[0], np.cumsum(batches)])
        return cls(len(lengths), largest, order, np.append(first, len(order)), numbers, seed)

    def __len__(self) -> int:
        return int(self.first_batch[-1])

    def batch(self, epoch: int, k: int) -> Ids:
        if self.seed is not None:
            k = int(permute(np.array([k]), len(self), (self.seed, epoch))[0])
        bucket = int(np.searchsorted(self.first_batch, k, "right")) - 1
        first, after = self.first_sample[bucket : bucket + 2]
        part, parts = k - self.first_batch[bucket], self.first_batch[bucket + 1] - self.first_batch[bucket]
        size = int(after - first)
        places = np.arange(size * part // parts, size * (part + 1) // parts)  # sizes differ by at most one
        if self.seed is not None:
            places = permute(places, size, (self.seed, epoch, bucket))
        found: Ids = self.order[first + places]
        return found


@lru_cache(maxsize=4)
def _permuted(first: int, end: int, size: int, key: tuple[int, ...]) -> Ids:
    """Return the elements from place `first` to `end` of a permutation."""
    return permute(np.arange(first, end), size, key)


def permute(places: Ids, size: int, key: tuple[int, ...]) -> Ids:
    """Return the elements at `places` of a random permutation of 0 .. size-1, in time proportional to `places`.

    A Feistel network of four rounds is a bijection on the next power of four. Values outside the range are mapped
    again until they are inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    assert places.max(initial=0) < size  # a larger place might never return to the range
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.SeedSequence([abs(part) for part in key]).generate_state(4, np.uint64).astype(np.uint64)
    found = _feistel(places.astype(np.uint64), half, mask, keys)
    while (outside := found >= size).any():
        found[outside] = _feistel(found[outside], half, mask, keys)
    return found.astype(np.int64)


def _feistel(value: NDArray[np.uint64], half: int, mask: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    left, right = value >> np.uint64(half), value & mask
    for key in keys:
        left, right = right, left ^ (_scramble(right ^ key) & mask)
    return (left << np.uint64(half)) | right


def _scramble(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit affects every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class Slice(NamedTuple):
    """What one rank reads in one micro-batch."""

    ids: Ids
    predictions: int
    """Number of targets in the whole global batch, over all ranks and micro-batches."""
    epoch: int
    step: int
    """Index of the global batch within the epoch."""
    slot: int
    """Index of the micro-batch within the step, 0 .. A-1."""


@dataclass(frozen=True)
class Share:
    """The partition of a global batch into W x A micro-batches of equally many rows."""

    world_size: int = 1
    rank: int = 0
    accumulation: int = 1

    @classmethod
    def of(cls, batch_size: int, limit: int | None, world_size: int, rank: int) -> "Share":
        """Derive the gradient accumulation: the fewest micro-batches of at most `limit` rows per process.

        Raises:
            ConfigError: the global batch is not divisible by the number of processes.
        """
        if batch_size % world_size:
            raise ConfigError(
                f"global_batch_size={batch_size} cannot be divided among {world_size} processes: "
                f"use a multiple of {world_size}, or other devices"
            )
        rows = batch_size // world_size
        if limit is not None and limit < 1:
            raise ConfigError(f"per_device_batch_size={limit} must be at least 1")
        accumulation = next(a for a in range(1, rows + 1) if rows % a == 0 and rows // a <= (limit or rows))
        return cls(world_size, rank, accumulation)

    @classmethod
    def of_budget(
        cls, budget: float | int, limit: float | int | None, world_size: int, rank: int, unit: str = "tokens"
    ) -> "Share":
        """Derive the accumulation for a budget of positions: the fewest micro-batches of about `limit` per process.

        Raises:
            ConfigError: the limit is not positive.
        """
        if limit is not None and limit <= 0:
            raise ConfigError(f"per_device_batch_{unit}={limit} must be above 0")
        return cls(world_size, rank, 1 if limit is None else math.ceil(budget / (limit * world_size)))

    @classmethod
    def of_config(cls, data: Mapping[str, Any], world_size: int, rank: int = 0) -> "Share | None":
        """Derive the partition from the arguments of a DataModule; None if they name no global batch.

        Raises:
            ConfigError: the global batch is not divisible by the number of processes.
        """
        if "global_batch_size" in data:
            return cls.of(data["global_batch_size"], data.get("per_device_batch_size"), world_size, rank)
        for unit in ("tokens", "seconds"):
            if budget := data.get(f"global_batch_{unit}"):
                return cls.of_budget(budget, data.get(f"per_device_batch_{unit}"), world_size, rank, unit)
        return None

    def rows(self, batch_size: int) -> int:
        """Return the rows per micro-batch of a global batch of that size."""
        return -(-batch_size // (self.world_size * self.accumulation))

    def of_rank(self, ids: Ids, slot: int) -> Ids:
        """Return this rank's micro-batch `slot` of a global batch: contiguous rows, padded with NO_SAMPLE."""
        rows = self.rows(len(ids))
        first = (self.rank * self.accumulation + slot) * rows
        mine = ids[first : first + rows]
        return mine if len(mine) == rows else np.pad(mine, (0, rows - len(mine)), constant_values=NO_SAMPLE)


class MicroBatches:
    """The batch sampler of a DataLoader: one rank's slices over all epochs, starting at any position.

    Args:
        plan: the plan of global batches.
        share: the partition of global batches.
        predictions: function that counts the targets in a global batch, given its ids.
        position: micro-batches already consumed by this rank.
        limit: micro-batches per epoch; None for all.
        growth: the parts in which the first global batches are read.
    """

    def __init__(
        self,
        plan: Plan,
        share: Share,
        predictions: Callable[[Ids], int],
        position: int = 0,
        limit: int | None = None,
        growth: Growth | None = None,
    ) -> None:
        self.plan, self.share, self.predictions, self.position = plan, share, predictions, position
        self.growth = growth or Growth()
        self.length = len(plan) * share.accumulation
        self.limit = self.length if limit is None else min(limit, self.length)

    @property
    def batch_size(self) -> int:
        """Maximum rows of a micro-batch; DeepSpeed reads it."""
        return self.share.rows(self.plan.batch_size)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Slice]:
        # The body runs at the first next(): with workers, torch calls iter() twice per epoch.
        epoch, index = divmod(self.position, self.limit)
        self.position = (epoch + 1) * self.limit
        for micro in range(index, self.length):
            step, slot = divmod(micro, self.share.accumulation)
            place = self.growth.place(epoch, step, self.limit // self.share.accumulation)
            ids = place.of(self.plan.batch(place.epoch, place.batch))
            yield Slice(self.share.of_rank(ids, slot), self.predictions(ids), place.epoch, place.batch, slot)
