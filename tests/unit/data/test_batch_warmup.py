"""The first global batches are read in parts, in steps of their own, and all others as planned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.batch_plan import MicroBatches, Share, Shuffled
from pipeline.data.batch_warmup import BatchWarmup, Growth, Place
from pipeline.data.pixels import PixelDataModule
from pipeline.data.recall import RecallDataModule
from pipeline.data.series import SeriesDataModule
from pipeline.data.text import TextDataModule
from pipeline.data.trajectories import TrajectoriesDataModule
from pipeline.errors import ConfigError


def read(plan: Shuffled, growth: Growth | None, share: Share, position: int = 0, epochs: int = 3) -> list[Any]:
    """Return the slices of the first epochs, counted in steps, from a position on."""
    sampler = MicroBatches(plan, share, len, position, growth=growth)
    slices: list[Any] = []
    while len(slices) < epochs * len(sampler) - position:
        slices += sampler
    return slices


def test_the_batches_are_slices_of_the_plan_made_by_hand() -> None:
    plan = Shuffled(62, 12, seed=4)  # five batches per epoch
    growth = Growth(BatchWarmup(start=3, steps=9), 12)
    found = [part.ids.tolist() for part in read(plan, growth, Share())]
    first, second, third, fourth, *rest = (plan.batch(epoch, k).tolist() for epoch in range(3) for k in range(5))
    expected = [first[:3], first[3:6], first[6:9], first[9:]]  # 3 rows, then 3 + 9 x 4/9 = 7, of which 6 divide 12
    expected += [half for each in (second, third, fourth) for half in (each[:6], each[6:])]  # 3 + 9 x 8/9 = 11
    expected += rest  # the warm-up lasts to step 10, at which the last divided batch is complete
    assert growth.parts == [4, 2, 2, 2]
    assert found == expected[:15]


@given(
    st.sampled_from([(12, 1), (12, 3), (32, 8), (60, 5), (7, 7), (7, 1)]),
    st.integers(1, 60),
    st.integers(0, 25),
    st.sampled_from([(1, None), (2, None), (1, 3), (3, 2)]),
)
def test_nothing_is_lost_or_read_twice_from_any_position_by_any_number_of_processes(
    sizes: tuple[int, int], steps: int, position: int, divided: tuple[int, int | None]
) -> None:
    (size, start), (processes, limit) = sizes, divided
    if size % processes:
        return
    plan, growth = Shuffled(size * 10 + size // 2, size, seed=1), Growth(BatchWarmup(start, steps), size)
    alone = read(plan, growth, Share())
    sizes_of_steps = [part.predictions for part in alone]
    assert sizes_of_steps == sorted(sizes_of_steps)
    assert sizes_of_steps[0] == start
    assert set(sizes_of_steps[int(growth.first[-1]) :]) <= {size}
    whole = np.concatenate([part.ids for part in alone]).tolist()
    assert whole == np.concatenate([plan.batch(*divmod(k, 10)) for k in range(30)]).tolist()[: len(whole)]
    shares = [Share.of(size, limit, processes, rank) for rank in range(processes)]
    slots = shares[0].accumulation
    ranks = [read(plan, growth, share, position * slots) for share in shares]
    for step, part in enumerate(alone[position:]):
        micro = [rank[step * slots + slot] for rank in ranks for slot in range(slots)]
        ids = np.concatenate([each.ids for each in micro])
        assert ids[ids >= 0].tolist() == part.ids.tolist()
        assert {(each.predictions, each.epoch, each.step) for each in micro} == {part[1:4]}


def test_the_size_grows_linearly_over_the_divisors() -> None:
    growth = Growth(BatchWarmup(start=8, steps=200), 64)
    sizes = np.array([64 // growth.place(0, step, 1000).parts for step in range(220)])
    assert set(sizes) == {8, 16, 32, 64}
    for size in (16, 32):  # at the step where the line reaches the size, up to the rest of a divided batch
        reached = 200 * (size - 8) / 56
        assert reached <= np.flatnonzero(sizes == size)[0] < reached + 64 // size * 2
    assert 200 <= np.flatnonzero(sizes == 64)[0] < 202
    assert Growth(None, 64).place(3, 5, 10) == Growth(BatchWarmup(64, 7), 64).place(3, 5, 10) == Place(3, 5)


@pytest.mark.parametrize(
    ("module", "dataset"),
    [
        (TextDataModule, "tiny_text_dataset"),
        (PixelDataModule, "tiny_pixels_dataset"),
        (RecallDataModule, "tiny_recall_dataset"),
        (SeriesDataModule, "tiny_series_dataset"),
        (TrajectoriesDataModule, "tiny_trajectories_dataset"),
    ],
)
def test_a_size_that_is_not_a_divisor_is_refused_for_every_kind_of_data(
    module: Callable[..., Any], dataset: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(dataset)
    with pytest.raises(
        ConfigError, match=r"batch_warmup\.start=3: expected a divisor of global_batch_size=4, got 3\. "
    ):
        module(path, global_batch_size=4, batch_warmup=BatchWarmup(3, 10))
    assert module(path, global_batch_size=4, batch_warmup=BatchWarmup(2, 3)).growth.parts == [2, 2]


def test_carried_rows_cannot_be_read_in_parts(tiny_text_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="expected order=shuffled or documents, got contiguous, in which every batch"):
        TextDataModule(tiny_text_dataset, order="contiguous", batch_warmup=BatchWarmup(1, 2))
    with pytest.raises(ValueError, match="start=0 and steps=2 must be at least 1"):
        BatchWarmup(0, 2)
