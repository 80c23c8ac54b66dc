"""Properties of every plan over sizes, budgets, numbers of processes, epochs and seeds."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.batch_plan import (
    NO_SAMPLE,
    Bucketed,
    Contiguous,
    InOrder,
    MicroBatches,
    Plan,
    Share,
    Shuffled,
    permute,
)

SEEDS, EPOCHS = st.integers(0, 2**40), st.integers(0, 100)
WORLDS = range(1, 9)
few = settings(max_examples=40)


class Made(NamedTuple):
    """A plan in buckets, the lengths of its samples, and the budget of a batch."""

    plan: Bucketed
    lengths: np.ndarray
    budget: int


@st.composite
def bucketed(draw: st.DrawFn, seeds: st.SearchStrategy[int | None], most: int = 50) -> Made:
    """Buckets of up to `most` batches, with samples in random order."""
    budget = draw(st.integers(60, 200))
    lengths = draw(st.lists(st.sampled_from([1, 7, 20, 59]), min_size=1, max_size=3, unique=True))
    parts = draw(st.tuples(st.integers(1, most), st.integers(1, 4), st.integers(1, 4)))
    full = [budget // length for length in lengths]
    counts = [rows * many - draw(st.integers(0, rows - 1)) for rows, many in zip(full, parts, strict=False)]
    mixed = np.random.default_rng(draw(st.integers(0, 9))).permutation(np.repeat(lengths, counts))
    return Made(Bucketed.of(mixed, budget, draw(seeds)), mixed, budget)


@st.composite
def rows(draw: st.DrawFn) -> Plan:
    """A plan whose global batches have a multiple of 840 rows, so that 1 to 8 processes can share them."""
    size = 840 * draw(st.integers(1, 2))
    samples = draw(st.integers(size, 5 * size))
    shuffled = Shuffled(samples, size, draw(SEEDS))
    plans = [shuffled, InOrder(samples, size), Contiguous(samples, size), Contiguous(samples, size, complete=True)]
    return draw(st.sampled_from(plans))


def batches(plan: Plan, epoch: int) -> list[np.ndarray]:
    return [plan.batch(epoch, k) for k in range(len(plan))]


def samples(parts: list[np.ndarray]) -> np.ndarray:
    """Return all samples, ascending."""
    together = np.sort(np.concatenate(parts))
    return together[together != NO_SAMPLE]


@few
@given(st.integers(1, 5000), SEEDS, EPOCHS, st.data())
def test_any_places_of_a_permutation_equal_those_of_the_whole(
    size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    whole = permute(np.arange(size), size, (seed, epoch))
    assert np.array_equal(np.sort(whole), np.arange(size))
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)))
    before = places.copy()
    assert np.array_equal(permute(places, size, (seed, epoch)), whole[places])
    assert np.array_equal(places, before)


@few
@given(st.integers(1, 400), st.integers(1, 40), SEEDS, EPOCHS)
def test_shuffled_reads_each_sample_once_except_the_remainder(size: int, batch: int, seed: int, epoch: int) -> None:
    plan = Shuffled(size, batch, seed)
    assert len(plan) == size // batch
    read = samples([np.empty(0, np.int64), *batches(plan, epoch)])
    assert len(read) == len(np.unique(read)) == size - size % batch
    assert ((read >= 0) & (read < size)).all()


@few
@given(st.integers(1, 400), st.integers(1, 40), EPOCHS)
def test_evaluations_read_every_sample_once_in_full_batches(size: int, batch: int, epoch: int) -> None:
    for plan in (InOrder(size, batch), Contiguous(size, batch, complete=True)):
        parts = batches(plan, epoch)
        assert len(parts) == -(-size // batch)
        assert {len(ids) for ids in parts} == {batch}
        assert np.array_equal(samples(parts), np.arange(size))
        assert all((ids != NO_SAMPLE).any() for ids in parts)
    assert np.array_equal(np.concatenate(batches(InOrder(size, batch), epoch))[:size], np.arange(size))


@few
@given(st.integers(1, 400), st.integers(1, 40), st.booleans())
def test_a_row_of_lanes_is_contiguous(size: int, batch: int, complete: bool) -> None:
    plan = Contiguous(size, batch, complete)
    table = np.array(batches(plan, 0)).reshape(len(plan), batch)
    assert len(plan) == (-(-size // batch) if complete else size // batch)
    for lane, column in enumerate(table.T):
        there = column[column != NO_SAMPLE]
        assert np.array_equal(there, lane * len(plan) + np.arange(len(there)))
        assert (column[len(there) :] == NO_SAMPLE).all()
    assert np.array_equal(samples([table.ravel()]), np.arange(size if complete else batch * len(plan)))


@given(bucketed(st.none() | SEEDS), EPOCHS)
def test_buckets_of_up_to_fifty_parts_contain_every_sample_once(made: Made, epoch: int) -> None:
    parts, (lengths, counts) = batches(made.plan, epoch), np.unique(made.lengths, return_counts=True)
    assert np.array_equal(samples(parts), np.arange(len(made.lengths)))
    assert made.plan.batch_size == max(map(len, parts))
    assert all(len(np.unique(made.lengths[ids])) == 1 for ids in parts)  # lengths are too different to be mixed
    assert len(parts) == sum(-(-counts // (made.budget // lengths)))
    assert max(len(ids) * made.lengths[ids].max() for ids in parts) <= made.budget


@given(st.integers(1, 50), st.integers(1, 30), st.none() | SEEDS, EPOCHS, st.data())
def test_the_parts_of_a_bucket_differ_by_one_sample_at_most(
    parts: int, batch: int, seed: int | None, epoch: int, data: st.DataObject
) -> None:
    size = parts * batch - data.draw(st.integers(0, batch - 1))
    plan = Bucketed.of(np.full(size, 12), 12 * batch, seed)
    assert len(plan) == -(-size // batch)
    sizes = [len(ids) for ids in batches(plan, epoch)]
    assert sum(sizes) == size
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == plan.batch_size <= batch


@few
@given(bucketed(st.none()), EPOCHS)
def test_an_evaluation_in_buckets_runs_from_the_shortest_to_the_longest(made: Made, epoch: int) -> None:
    order = np.concatenate(batches(made.plan, epoch))
    assert np.array_equal(order, np.argsort(made.lengths, kind="stable"))


@few
@given(bucketed(SEEDS), EPOCHS)
def test_another_epoch_has_batches_of_the_same_sizes_with_other_samples(made: Made, epoch: int) -> None:
    now, later = batches(made.plan, epoch), batches(made.plan, epoch + 1)
    assert sorted(map(len, now)) == sorted(map(len, later))
    assert len(made.lengths) < 40 or [ids.tolist() for ids in now] != [ids.tolist() for ids in later]


@few
@given(rows() | bucketed(st.none() | SEEDS, most=8).map(lambda made: made.plan), EPOCHS, st.data())
def test_a_batch_is_a_function_of_epoch_and_number_alone(plan: Plan, epoch: int, data: st.DataObject) -> None:
    """In any order, and for an equal plan."""
    expected = {(e, k): plan.batch(e, k).copy() for e in (epoch, epoch + 1) for k in range(len(plan))}
    other = replace(plan)
    for at in data.draw(st.permutations(sorted(expected)))[:40]:
        assert np.array_equal(other.batch(*at), expected[at])
        assert np.array_equal(plan.batch(*at), expected[at])


def assert_shared(plan: Plan, shares: list[Share], epoch: int) -> None:
    """Assert that the slices of all ranks and micro-batches contain every row of each global batch once, in order."""
    slots = shares[0].accumulation
    everyone = [list(MicroBatches(plan, share, predictions, epoch * len(plan) * slots)) for share in shares]
    assert {len(slices) for slices in everyone} == {len(plan) * slots}
    for k, ids in enumerate(batches(plan, epoch)):
        parts = [slices[k * slots + slot] for slices in everyone for slot in range(slots)]
        assert len({len(part.ids) for part in parts}) == 1
        together = np.concatenate([part.ids for part in parts])
        assert np.array_equal(together[together != NO_SAMPLE], ids[ids != NO_SAMPLE])
        assert len(together) - len(ids) < len(parts) * max(1, -(-len(ids) // len(parts)))
        assert {part[1:4] for part in parts} == {(predictions(ids), epoch, k)}
        assert [part.slot for part in parts] == [*range(slots)] * len(shares)


def predictions(ids: np.ndarray) -> int:
    return 7 * int((ids != NO_SAMPLE).sum())


@settings(max_examples=15)
@given(rows(), st.none() | st.integers(1, 900), st.integers(0, 5))
def test_one_to_eight_processes_share_every_batch(plan: Plan, limit: int | None, epoch: int) -> None:
    for world in WORLDS:
        shares = [Share.of(plan.batch_size, limit, world, rank) for rank in range(world)]
        slots = shares[0].accumulation
        mine = plan.batch_size // world
        assert mine % slots == 0
        assert limit is None or mine // slots <= limit
        fewer = [slots_ for slots_ in range(1, slots) if mine % slots_ == 0]
        assert all(limit is not None and mine // slots_ > limit for slots_ in fewer)
        if slots <= 12:  # larger numbers are slow and test nothing new
            assert_shared(plan, shares, epoch)


@settings(max_examples=15)
@given(bucketed(st.none() | SEEDS, most=6), st.none() | st.integers(20, 300), st.integers(0, 5))
def test_one_to_eight_processes_share_batches_of_any_size(made: Made, limit: int | None, epoch: int) -> None:
    for world in WORLDS:
        shares = [Share.of_budget(made.budget, limit, world, rank) for rank in range(world)]
        slots = shares[0].accumulation
        assert slots == 1 if limit is None else (slots - 1) * limit * world < made.budget <= slots * limit * world
        assert_shared(made.plan, shares, epoch)


@few
@given(rows() | bucketed(st.none() | SEEDS, most=8).map(lambda made: made.plan), st.integers(1, 3), st.data())
def test_from_any_position_the_same_slices_follow(plan: Plan, slots: int, data: st.DataObject) -> None:
    """Also if an epoch ends before the plan does."""
    share = Share(2, 1, slots)
    limit = data.draw(st.none() | st.integers(1, len(plan) * slots))
    per_epoch = limit or len(plan) * slots
    position = data.draw(st.integers(0, 3 * per_epoch))
    epoch, first = divmod(position, per_epoch)
    resumed = list(MicroBatches(plan, share, predictions, position, limit))
    straight = list(MicroBatches(plan, share, predictions, epoch * per_epoch, limit))[first:]
    assert [(part.ids.tolist(), *part[1:]) for part in resumed] == [(part.ids.tolist(), *part[1:]) for part in straight]
    sampler = MicroBatches(plan, share, predictions, position, limit)
    list(sampler)
    assert {part.epoch for part in sampler} == {epoch + 1}
