"""The plan is a pure function, the same for any number of processes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.batch_plan import NO_SAMPLE, Bucketed, Contiguous, InOrder, MicroBatches, Share, Shuffled, permute
from pipeline.errors import ConfigError


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 50))
def test_permute_is_a_bijection(size: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(size), size, (seed, epoch))) == list(range(size))


def test_permute_looks_random() -> None:
    order = permute(np.arange(10_000), 10_000, (1, 0))
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert (order == np.arange(10_000)).sum() < 10


@given(st.integers(1, 200), st.integers(1, 20))
def test_evaluation_reads_every_sample_exactly_once(samples: int, size: int) -> None:
    for plan in (InOrder(samples, size), Contiguous(samples, size, complete=True)):
        ids = np.concatenate([plan.batch(0, k) for k in range(len(plan))])
        assert sorted(ids[ids != NO_SAMPLE]) == list(range(samples))
        assert len(ids) == len(plan) * size


@given(st.integers(20, 200), st.integers(1, 20))
def test_training_reads_no_sample_twice_in_an_epoch(samples: int, size: int) -> None:
    for plan in (Shuffled(samples, size, seed=3), Contiguous(samples, size)):
        ids = np.concatenate([plan.batch(1, k) for k in range(len(plan))])
        assert len(set(ids.tolist())) == len(ids) == samples // size * size
        assert ids.min() >= 0
        assert ids.max() < samples


def test_epochs_differ_and_repeat_by_seed() -> None:
    plan = Shuffled(100, 10, seed=5)
    assert plan.batch(0, 3).tolist() == Shuffled(100, 10, seed=5).batch(0, 3).tolist()
    assert plan.batch(0, 3).tolist() != plan.batch(1, 3).tolist()
    assert plan.batch(0, 3).tolist() != Shuffled(100, 10, seed=6).batch(0, 3).tolist()


def test_rows_of_lanes_continue_where_they_were() -> None:
    plan = Contiguous(103, 10)
    for k in range(len(plan) - 1):
        assert (plan.batch(0, k + 1) == plan.batch(0, k) + 1).all()


@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (4, 2), (1, 2), (2, 3)])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_processes_and_micro_batches_share_one_plan(world: int, limit: int | None, position: int) -> None:
    """From any global batch, the slices put together are the plan's batches."""
    plan = Shuffled(100, 24, seed=1)
    shares = [Share.of(24, limit, world, rank) for rank in range(world)]
    slots = shares[0].accumulation
    seen = []
    for share in shares:
        sampler = MicroBatches(plan, share, len, position=position * slots)
        seen.append([part for _ in range(3) for part in sampler])  # the rest of this epoch and two more
    expected = [plan.batch(e, k) for e in range(3) for k in range(len(plan))][position:]
    for number, ids in enumerate(expected):
        rows = [seen[rank][number * slots + slot].ids for rank in range(world) for slot in range(slots)]
        assert np.concatenate(rows).tolist() == ids.tolist()
        assert all(len(row) <= (limit or 24) for row in rows)


def test_iterating_a_sampler_twice_before_reading_loses_nothing() -> None:
    sampler = MicroBatches(InOrder(10, 2), Share(), len)
    iter(sampler)
    assert [part.ids.tolist() for part in iter(sampler)] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_a_global_batch_that_cannot_be_divided_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"global_batch_size=10 cannot be divided among 4 processes"):
        Share.of(10, None, 4, 0)


def test_accumulation_is_the_smallest_that_fits() -> None:
    assert [Share.of(24, limit, 2, 0).accumulation for limit in (None, 12, 11, 5, 1)] == [1, 1, 2, 3, 12]


LENGTHS = st.lists(st.integers(1, 120), min_size=1, max_size=300).map(np.array)


@given(LENGTHS, st.integers(120, 2000), st.sampled_from([None, 7]), st.integers(0, 3))
def test_buckets_contain_every_sample_once_per_epoch_within_the_budget(
    lengths: np.ndarray, budget: int, seed: int | None, epoch: int
) -> None:
    plan = Bucketed.of(lengths, budget, seed)
    batches = [plan.batch(epoch, k) for k in range(len(plan))]
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for ids in batches:
        assert 0 < len(ids) <= plan.batch_size
        assert len(ids) * lengths[ids].max() <= budget
        shortest, longest = lengths[ids].min(), lengths[ids].max()
        assert longest <= max(1.1 * shortest, shortest + 1)


def test_buckets_are_shuffled_differently_in_each_epoch() -> None:
    lengths = np.random.default_rng(1).integers(1, 60, 5000)
    plan = Bucketed.of(lengths, 600, seed=3)
    epochs = [[tuple(plan.batch(epoch, k)) for k in range(len(plan))] for epoch in (0, 1)]
    assert not set(epochs[0]) & set(epochs[1])
    assert [tuple(Bucketed.of(lengths, 600, 3).batch(1, k)) for k in range(len(plan))] == epochs[1]
    first = np.array([lengths[list(ids)].mean() for ids in epochs[0]])
    assert abs(np.corrcoef(np.arange(len(first)), first)[0, 1]) < 0.2  # not by length


def test_buckets_need_little_padding() -> None:
    lengths = np.random.default_rng(1).lognormal(3, 0.6, 20_000).astype(np.int64) + 1
    plan = Bucketed.of(lengths, 4096, seed=3)
    batches = [lengths[plan.batch(0, k)] for k in range(len(plan))]
    assert 1 - lengths.sum() / sum(len(part) * part.max() for part in batches) < 0.05


@given(LENGTHS, st.integers(1, 4), st.integers(1, 3))
def test_processes_share_a_batch_of_any_size(lengths: np.ndarray, world: int, slots: int) -> None:
    plan = Bucketed.of(lengths, 240, seed=1)
    for k in range(len(plan)):
        ids = plan.batch(0, k)
        rows = [Share(world, rank, slots).of_rank(ids, slot) for rank in range(world) for slot in range(slots)]
        assert len({len(row) for row in rows}) == 1
        together = np.concatenate(rows)
        assert together[together != NO_SAMPLE].tolist() == ids.tolist()


def test_a_budget_is_divided_into_the_fewest_micro_batches() -> None:
    assert [Share.of_budget(4096, limit, 2, 0).accumulation for limit in (None, 4096, 2048, 2047, 500)] == [
        1,
        1,
        1,
        2,
        5,
    ]
    with pytest.raises(ConfigError, match="per_device_batch_tokens=0"):
        Share.of_budget(4096, 0, 2, 0)


def reference_permutation(size: int, key: tuple[int, ...]) -> list[int]:
    """The documented permutation with Python's integers, place by place."""
    word = (1 << 64) - 1
    half = 1
    while 4**half < size:
        half += 1
    mask = (1 << half) - 1
    keys = [int(each) for each in np.random.SeedSequence(key).generate_state(4, np.uint64)]

    def scrambled(value: int) -> int:  # SplitMix64
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & word
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & word
        return value ^ (value >> 31)

    def network(value: int) -> int:
        left, right = value >> half, value & mask
        for each in keys:
            left, right = right, left ^ (scrambled(right ^ each) & mask)
        return (left << half) | right

    found = []
    for place in range(size):
        value = network(place)
        while value >= size:
            value = network(value)
        found.append(value)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 64, 65, 100, 256, 257, 1000])
@pytest.mark.parametrize("key", [(0, 0), (5, 3), (2**40, 1, 12)])
def test_permute_is_the_documented_network(size: int, key: tuple[int, ...]) -> None:
    assert permute(np.arange(size), size, key).tolist() == reference_permutation(size, key)


def test_the_sign_of_a_seed_is_ignored() -> None:
    assert permute(np.arange(9), 9, (-5, 3)).tolist() == permute(np.arange(9), 9, (5, 3)).tolist()


def test_a_shuffled_epoch_follows_the_permutation_of_seed_and_epoch() -> None:
    plan, order = Shuffled(103, 10, seed=5), permute(np.arange(103), 103, (5, 2))
    assert len(plan) == 10
    assert [plan.batch(2, k).tolist() for k in range(10)] == [order[10 * k : 10 * k + 10].tolist() for k in range(10)]


def test_buckets_are_as_documented() -> None:
    lengths = np.array([30, 1, 31, 2, 33, 2, 32, 2, 64, 30, 30, 1])
    plan = Bucketed.of(lengths, 100, seed=None)
    # Buckets: 1 and 2; 30 and 31; 32 and 33; 64. The longest sample of a bucket limits its rows.
    found = [plan.batch(0, k).tolist() for k in range(len(plan))]
    assert found == [[1, 11, 3, 5, 7], [0, 9], [10, 2], [6, 4], [8]]
    assert plan.batch_size == 5
    assert plan.first_batch.tolist() == [0, 1, 3, 4, 5]
    assert plan.first_sample.tolist() == [0, 5, 9, 11, 12]
    assert len(Bucketed.of(np.zeros(0, np.int64), 100, None)) == 0


def test_the_parts_of_a_bucket_differ_by_one_at_most() -> None:
    for samples in range(1, 60):
        plan = Bucketed.of(np.full(samples, 20), 100, seed=3)
        sizes = [len(plan.batch(4, k)) for k in range(len(plan))]
        assert len(sizes) == -(-samples // 5)
        assert max(sizes) - min(sizes) <= 1
        assert plan.batch_size == max(sizes)
        assert sorted(np.concatenate([plan.batch(4, k) for k in range(len(plan))])) == list(range(samples))


def test_the_share_is_read_from_the_arguments_of_a_data_module() -> None:
    of = Share.of_config
    assert of({"global_batch_size": 24, "per_device_batch_size": 3}, 2, 1) == Share(2, 1, 4)
    assert of({"global_batch_size": 24}, 2, 1) == Share(2, 1, 1)
    assert of({"global_batch_tokens": 4096, "per_device_batch_tokens": 1000}, 2, 1) == Share(2, 1, 3)
    assert of({"global_batch_seconds": 60.0, "per_device_batch_seconds": 20}, 1) == Share(1, 0, 3)
    assert of({"global_batch_seconds": 60.0, "global_batch_tokens": None}, 4, 3) == Share(4, 3, 1)
    assert of({"workers": 2}, 2) is None
    with pytest.raises(ConfigError, match="per_device_batch_seconds=0 must be above 0"):
        of({"global_batch_seconds": 60.0, "per_device_batch_seconds": 0}, 1)
    with pytest.raises(ConfigError, match="per_device_batch_size=0 must be at least 1"):
        of({"global_batch_size": 24, "per_device_batch_size": 0}, 2)


def test_a_micro_batch_has_its_position() -> None:
    plan, share = InOrder(10, 4), Share(world_size=2, rank=1, accumulation=2)
    sampler = MicroBatches(plan, share, lambda ids: int((ids != NO_SAMPLE).sum()), position=7)
    assert (len(sampler), sampler.batch_size, sampler.limit) == (6, 1, 6)
    found = list(sampler)
    assert [(part.epoch, part.step, part.slot) for part in found] == [
        (1, 0, 1), (1, 1, 0), (1, 1, 1), (1, 2, 0), (1, 2, 1)
    ]  # fmt: skip
    assert [part.ids.tolist() for part in found] == [[3], [6], [7], [NO_SAMPLE], [NO_SAMPLE]]
    assert [part.predictions for part in found] == [4, 4, 4, 2, 2]
    assert sampler.position == 12
    assert next(iter(sampler)).epoch == 2


def test_a_limited_epoch_ends_early_and_the_next_one_starts_at_its_beginning() -> None:
    sampler = MicroBatches(InOrder(10, 2), Share(), len, position=4, limit=3)
    assert (len(sampler), sampler.limit) == (5, 3)
    part = next(iter(sampler))
    assert (part.epoch, part.step, sampler.position) == (1, 1, 6)
    assert MicroBatches(InOrder(10, 2), Share(), len, limit=99).limit == 5


def test_lanes_are_contiguous_streams() -> None:
    assert [Contiguous(11, 3).batch(0, k).tolist() for k in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    complete = Contiguous(11, 3, complete=True)
    assert [complete.batch(0, k).tolist() for k in range(len(complete))] == [
        [0, 4, 8],
        [1, 5, 9],
        [2, 6, 10],
        [3, 7, NO_SAMPLE],
    ]
