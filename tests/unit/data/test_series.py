"""Batches of windows of time series are the same for any number of processes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Share, Slice
from pipeline.data.series import SeriesDataModule
from pipeline.errors import ConfigError, DataError


@pytest.fixture
def data(tiny_series_dataset: Path) -> SeriesDataModule:
    return SeriesDataModule(tiny_series_dataset, context=12, horizon=4, global_batch_size=10, stride=3)


@pytest.mark.numeric
def test_a_batch_equals_the_result_of_a_loop_over_the_series(data: SeriesDataModule) -> None:
    samples = data.samples("train")
    split, ids = samples.split, np.array([0, 45, 170, 300, NO_SAMPLE])
    batch = samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 7, 0))
    observed = np.diff(split.unobserved_before) == 0
    for row, sample in enumerate(ids[:-1]):
        series, begin = samples.places[sample]
        first = split.first_steps[series] + 12 <= begin
        assert first
        assert torch.equal(batch.context[row], torch.from_numpy(split.values[begin - 12 : begin].copy()))
        assert torch.equal(batch.targets[row], torch.from_numpy(split.values[begin : begin + 4].copy()))
        assert torch.equal(batch.known[row], torch.from_numpy(split.known[begin - 12 : begin + 4].copy()))
        assert batch.observed[row].tolist() == observed[begin : begin + 4].tolist()
        assert batch.naive_errors[row] == split.naive_errors[series]
    assert not batch.observed[-1].any()
    assert batch.predictions == int(batch.observed.sum())
    assert (batch.step, batch.ids.tolist()) == (7, ids.tolist())


@pytest.mark.numeric
def test_windows_that_were_read_are_sent_to_a_worker_without_their_views(data: SeriesDataModule) -> None:
    samples = data.samples("train")
    before, ids = len(pickle.dumps(samples)), np.arange(3)
    first = samples.batch(ids)
    again = pickle.loads(pickle.dumps(samples))
    assert len(pickle.dumps(again)) < before + 100 * len(samples)  # the places, not the values of each window
    assert torch.equal(again.batch(ids).context, first.context)


def test_a_step_without_a_value_is_not_predicted(data: SeriesDataModule) -> None:
    samples = data.samples("train")
    everything = np.arange(len(samples))
    assert samples.predictions(everything) == 4 * len(samples) - 4  # four windows contain the one gap


def test_a_horizon_without_any_value_is_left_out(tiny_series_dataset: Path) -> None:
    every = SeriesDataModule(tiny_series_dataset, 12, 4).samples("train")
    single = SeriesDataModule(tiny_series_dataset, 12, 1).samples("train")
    assert len(single) == len(every) + 3 * 3 - 1  # three more windows in each of three series, except the gap
    assert all(single.predictions(np.array([sample])) == 1 for sample in range(len(single)))
    assert single.batch(np.arange(len(single))).observed.all()


@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (5, 1)])
def test_any_number_of_processes_sees_the_same_global_batches(
    data: SeriesDataModule, world: int, limit: int | None
) -> None:
    samples = data.samples("train")
    plan = data.plan(samples)
    shares = [Share.of(10, limit, world, rank) for rank in range(world)]
    parts = [list(MicroBatches(plan, share, samples.predictions)) for share in shares]
    slots = shares[0].accumulation
    for k in (0, 3, len(plan) - 1):
        mine = [parts[rank][k * slots + slot] for rank in range(world) for slot in range(slots)]
        assert np.concatenate([part.ids for part in mine]).tolist() == plan.batch(0, k).tolist()
        batches = [samples.__getitems__(part) for part in mine]
        assert sum(int(batch.observed.sum()) for batch in batches) == mine[0].predictions


def test_an_evaluation_covers_its_split_in_strides(data: SeriesDataModule) -> None:
    samples = data.samples("validation")
    assert samples.places[:, 1].tolist() == [240 * n + at for n in range(3) for at in range(144, 189, 3)]
    plan = data.plan_evaluation(samples)
    ids = np.concatenate([plan.batch(0, k) for k in range(len(plan))])
    assert ids[ids != NO_SAMPLE].tolist() == list(range(len(samples)))


def test_the_model_gets_lengths_and_covariates_from_the_data(data: SeriesDataModule) -> None:
    assert data.facts.known() == {"context": 12, "horizon": 4, "covariates": 1}


def test_invalid_settings_are_rejected_in_one_line(tiny_series_dataset: Path, tiny_pairs_dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"fit the validation split .* got 48 steps .*init_args.horizon 24 --data"):
        SeriesDataModule(tiny_series_dataset, 12, 100).samples("validation")
    wide = SeriesDataModule(tiny_series_dataset, 12, 4, global_batch_size=10_000)
    with pytest.raises(ConfigError, match=r"global_batch_size=10000: expected at most 387, .*global_batch_size 32$"):
        wide.plan(wide.samples("train"))
    with pytest.raises(ConfigError, match="horizon=0"):
        SeriesDataModule(tiny_series_dataset, 12, 0)
    with pytest.raises(DataError, match="expected kind 'series'"):
        SeriesDataModule(tiny_pairs_dataset)


@pytest.mark.parametrize("rows", [24, 144, 900])
def test_the_sizes_that_an_error_names_fit_a_short_table(tmp_path: Path, rows: int) -> None:
    """The defaults of the configs require more steps than a table of months has."""
    from data_prep.series import command as series

    months = (f"{1900 + at // 12}-{at % 12 + 1:02},{at % 12 + 0.1 * at}" for at in range(rows))
    (tmp_path / "months.csv").write_text("month,value\n" + "\n".join(months))
    assert series.main([str(tmp_path / "months.csv"), "--output", str(tmp_path / "data")]) == 0
    data = SeriesDataModule(tmp_path / "data", 336, 96, global_batch_size=128)
    part = "validation" if rows < 900 else "train"
    with pytest.raises(ConfigError, match="Set --data") as error:
        data.plan(data.samples(part))
    words = str(error.value).replace(",", "").split()
    names = "context", "horizon", "global_batch_size"
    sizes = {name: int(words[words.index(f"--data.init_args.{name}") + 1]) for name in names}
    fitting = SeriesDataModule(tmp_path / "data", **sizes)
    assert all(len(fitting.samples(name)) for name in ("validation", "test"))
    assert len(fitting.plan(fitting.samples("train"))) >= 2
    if rows == 144:
        assert sizes == {"context": 36, "horizon": 12, "global_batch_size": 8}
