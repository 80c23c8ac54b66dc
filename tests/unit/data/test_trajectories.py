"""Batches of segments of episodes are the same for any number of processes."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Share, Slice
from pipeline.data.trajectories import TrajectoriesDataModule
from pipeline.errors import ConfigError, DataError


def module(dataset: Path, context: int | None = None) -> TrajectoriesDataModule:
    return TrajectoriesDataModule(dataset, context, global_batch_size=8)


@pytest.mark.parametrize("context", [None, 3, 100])
def test_a_batch_equals_the_result_of_a_loop_over_the_episodes(
    tiny_trajectories_dataset: Path, context: int | None
) -> None:
    samples = module(tiny_trajectories_dataset, context).samples("train")
    split, ids = samples.split, np.array([0, 7, len(samples) - 1, NO_SAMPLE])
    batch = samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 5, 0))
    found = [
        (first, begin, after if context is None else min(after, begin + context))
        for first, after in zip(split.first_steps[:-1].tolist(), split.first_steps[1:].tolist(), strict=True)
        for begin in ([first] if context is None else range(first, after))
    ]
    assert len(samples) == len(found)
    for row, sample in enumerate(ids[:-1]):
        first, begin, end = found[sample]
        size = end - begin
        assert batch.inside[row].tolist() == [True] * size + [False] * (batch.inside.shape[1] - size)
        for name in ("observations", "actions", "returns"):
            assert getattr(batch, name)[row, :size].tolist() == getattr(split, name)[begin:end].tolist()
        before = [split.actions[step - 1] if step > first else -1 for step in range(begin, end)]
        assert batch.before[row, :size].tolist() == before
    assert not batch.inside[-1].any()
    assert batch.predictions == int(batch.inside.sum())
    assert (batch.step, batch.ids.tolist()) == (5, ids.tolist())
    assert (batch.padding, batch.positions) == (int((~batch.inside).sum()), batch.inside.numel())
    assert batch.inside.any(0).all()  # not longer than its longest segment


@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (4, 1)])
def test_any_number_of_processes_sees_the_same_global_batches(
    tiny_trajectories_dataset: Path, world: int, limit: int | None
) -> None:
    data = module(tiny_trajectories_dataset, 3)
    samples = data.samples("train")
    plan, shares = data.plan(samples), [Share.of(8, limit, world, rank) for rank in range(world)]
    parts = [list(MicroBatches(plan, share, samples.predictions)) for share in shares]
    slots = shares[0].accumulation
    for k in (0, 2, len(plan) - 1):
        mine = [parts[rank][k * slots + slot] for rank in range(world) for slot in range(slots)]
        assert np.concatenate([part.ids for part in mine]).tolist() == plan.batch(0, k).tolist()
        assert sum(int(samples.__getitems__(part).inside.sum()) for part in mine) == mine[0].predictions


@pytest.mark.parametrize("context", [None, 3])
def test_an_evaluation_contains_each_step_once(tiny_trajectories_dataset: Path, context: int | None) -> None:
    data = module(tiny_trajectories_dataset, context)
    samples = data.samples("validation")
    plan = data.plan_evaluation(samples)
    ids = np.concatenate([plan.batch(0, k) for k in range(len(plan))])
    stretches = samples.places[ids[ids != NO_SAMPLE], 1:]
    steps = np.concatenate([np.arange(begin, end) for begin, end in stretches])
    assert sorted(steps.tolist()) == list(range(samples.split.steps))


def test_the_model_gets_the_spaces_from_the_data(tiny_trajectories_dataset: Path) -> None:
    data = module(tiny_trajectories_dataset)
    assert data.facts.known() == {"spaces": data.dataset.manifest["trajectories"]["spaces"]}


def test_invalid_settings_are_rejected_in_one_line(tiny_trajectories_dataset: Path, tiny_pairs_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="context=0 and global_batch_size=64 must be at least 1"):
        TrajectoriesDataModule(tiny_trajectories_dataset, context=0)
    wide = TrajectoriesDataModule(tiny_trajectories_dataset, global_batch_size=1000)
    with pytest.raises(ConfigError, match="fewer than global_batch_size=1000"):
        wide.plan(wide.samples("train"))
    with pytest.raises(DataError, match="expected kind 'trajectories'"):
        TrajectoriesDataModule(tiny_pairs_dataset)
