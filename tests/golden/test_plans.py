"""The assignment of samples to batches is unchanged between versions."""

import zlib
from itertools import islice
from typing import Any

import numpy as np
import pytest

from pipeline.data.batch_plan import Bucketed, Contiguous, InOrder, MicroBatches, Plan, Share, Shuffled, permute
from tests.golden.recorded import Golden

LENGTHS = np.array([i * i * 7919 % 97 + 1 for i in range(400)] + [40] * 700 + [3] * 500)
LARGE = 3_000_000_019
PLANS = {
    "windows": Shuffled(103, 8, seed=5),
    "windows of another seed": Shuffled(103, 8, seed=6),
    "windows, as many as a batch": Shuffled(8, 8, seed=5),
    "windows, more than a processor's integer of 32 bits": Shuffled(LARGE, 4, seed=5),
    "windows in order, the last batch filled up": InOrder(103, 8),
    "windows in order, no batch filled up": InOrder(104, 8),
    "lanes": Contiguous(103, 8),
    "lanes, all of them": Contiguous(103, 8, complete=True),
    "buckets": Bucketed.of(LENGTHS, 800, seed=5),
    "buckets of few parts": Bucketed.of(LENGTHS[:60], 800, seed=5),
    "buckets in order": Bucketed.of(LENGTHS, 800, seed=None),
}


def crc(*ids: Any) -> int:
    return zlib.crc32(np.concatenate([np.asarray(each).ravel() for each in ids]).astype("<i8").tobytes())


def order(plan: Plan, epoch: int) -> dict[str, object]:
    """Return a plan's first and last batch, and a checksum of up to a thousand batches."""
    batches = [plan.batch(epoch, k) for k in range(min(len(plan), 1000))]
    last = plan.batch(epoch, len(plan) - 1)
    return {"first": batches[0], "last": last, "sizes": crc([len(ids) for ids in batches]), "all": crc(*batches)}


@pytest.mark.parametrize("name", PLANS)
def test_the_batches_of_a_plan_are_unchanged(golden: Golden, name: str) -> None:
    epochs = {f"epoch {epoch}": order(PLANS[name], epoch) for epoch in (0, 1, 7)}
    golden("plans", name, {"batches": len(PLANS[name]), **epochs})


@pytest.mark.parametrize("key", [(0, 0), (1, 0), (1, 1), (2**40, 3), (7, 2, 4)], ids=str)
def test_the_permutation_is_unchanged(golden: Golden, key: tuple[int, ...]) -> None:
    sizes = (1, 2, 3, 5, 16, 17, 100, 1000, 2**20 + 7, LARGE)
    places = {size: np.arange(min(size, 1000)) for size in sizes}
    found = {size: permute(places[size], size, key) for size in sizes}
    golden("plans", f"permutation {key}", {size: [ids[:6], crc(ids)] for size, ids in found.items()})


def test_the_parts_of_a_bucket_are_unchanged(golden: Golden) -> None:
    """One bucket of 1,003 samples in fifty parts: sample numbers from the first to the last part."""
    plan = Bucketed.of(np.full(1003, 10), 10 * 21, seed=None)
    edges = [plan.batch(0, k)[[0, -1]] for k in range(len(plan))]
    golden("plans", "fifty parts", {"batches": len(plan), "first and last of each": edges})


@pytest.mark.parametrize("limit", [None, 1, 5, 12])
def test_the_division_of_a_batch_is_unchanged(golden: Golden, limit: int | None) -> None:
    shares = {world: [Share.of(24, limit, world, rank) for rank in range(world)] for world in (1, 2, 3, 4, 8)}
    found = {
        world: {
            "accumulation": everyone[0].accumulation,
            "rows": [[share.of_rank(np.arange(24), slot) for slot in range(share.accumulation)] for share in everyone],
        }
        for world, everyone in shares.items()
    }
    golden("plans", f"24 rows, at most {limit} at once", found)


@pytest.mark.parametrize("limit", [None, 100, 400])
def test_the_division_of_batches_of_any_size_is_unchanged(golden: Golden, limit: int | None) -> None:
    shares = {world: [Share.of_budget(800, limit, world, rank) for rank in range(world)] for world in (1, 2, 3)}
    found = {
        world: {
            size: [[share.of_rank(np.arange(size), slot) for slot in range(share.accumulation)] for share in everyone]
            for size in (1, 7, 20)
        }
        for world, everyone in shares.items()
    }
    golden("plans", f"800 positions, at most {limit} at once", found)


def test_the_position_in_the_data_is_unchanged(golden: Golden) -> None:
    """The second of two processes with two micro-batches per step, in epochs that end after three of twelve steps."""
    share = Share(world_size=2, rank=1, accumulation=2)
    sampler = MicroBatches(PLANS["windows"], share, len, position=9, limit=6)
    slices = [*islice(iter(sampler), 3), *islice(iter(sampler), 2)]
    golden("plans", "from position 9", [part._asdict() for part in slices])
