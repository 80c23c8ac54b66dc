"""Series are read back unchanged, and windows equal those of a loop."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset import shard
from pipeline.dataset.series import PARTS, Series, SeriesSplit, write_series
from pipeline.errors import DataError

Splits = Callable[..., dict[str, SeriesSplit]]


def made(name: str, steps: int, edges: tuple[int, ...], missing: tuple[int, ...] = (), seed: int = 0) -> Series:
    chance = np.random.default_rng(seed)
    observed = np.ones(steps, bool)
    observed[list(missing)] = False
    values, known = chance.random(steps, np.float32), chance.random((steps, 2), np.float32)
    return Series(name, 1_000_000 * seed, edges, 0.5 + seed, values, observed, known)


ALL = [
    made("north", 20, (0, 10, 15, 20), seed=1),
    made("south", 12, (2, 6, 9, 12), missing=(4, 5), seed=2),
    made("west", 7, (0, 3, 5, 7), seed=3),
]


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    def write(*shards: list[Series]) -> dict[str, SeriesSplit]:
        described = [write_series(tmp_path / f"{number}.arrow", part)._asdict() for number, part in enumerate(shards)]
        entry = {"series": sum(map(len, shards)), "steps": 33, "covariates": 2, "shards": described}
        return {name: SeriesSplit.of(tmp_path, name, entry) for name in PARTS}

    return write


@pytest.mark.parametrize("pieces", [[ALL], [ALL[:1], ALL[1:]]], ids=["one shard", "two shards"])
def test_series_read_back_as_they_were_written(splits: Splits, pieces: list[list[Series]]) -> None:
    split = pickle.loads(pickle.dumps(splits(*pieces)["train"]))
    assert (split.name, split.series, split.steps, split.covariates) == ("train", 3, 33, 2)
    assert split.names == ["north", "south", "west"]
    assert split.starts.tolist() == [1_000_000, 2_000_000, 3_000_000]
    assert split.naive_errors.tolist() == [1.5, 2.5, 3.5]
    assert split.first_steps.tolist() == [0, 20, 32, 39]
    assert np.array_equal(split.values, np.concatenate([one.values for one in ALL]))
    assert np.array_equal(split.known, np.concatenate([one.known for one in ALL]))
    missing = np.concatenate([~one.observed for one in ALL])
    assert split.unobserved_before is not None
    assert split.unobserved_before.tolist() == [int(missing[:steps].sum()) for steps in range(40)]


def test_fully_observed_series_have_no_count_of_unobserved_steps(splits: Splits) -> None:
    assert splits([ALL[0], ALL[2]])["train"].unobserved_before is None


@pytest.mark.parametrize(("context", "horizon", "stride"), [(3, 2, 1), (1, 3, 2), (8, 1, 3), (0, 2, 1)])
def test_windows_are_those_of_a_loop(splits: Splits, context: int, horizon: int, stride: int) -> None:
    for part, (name, split) in enumerate(splits(ALL[:2], ALL[2:]).items()):
        expected = []
        for number, (one, before) in enumerate(zip(ALL, (0, 20, 32), strict=True)):
            begin = max(one.edges[part], context)
            while begin + horizon <= one.edges[part + 1]:
                expected.append([number, before + begin])
                begin += stride
        found = split.windows(context, horizon, stride)
        assert found.tolist() == expected, name
        assert found.dtype == np.int64


def test_splits_shorter_than_a_window_have_no_windows(splits: Splits) -> None:
    assert splits(ALL)["test"].windows(30, 2, 1).shape == (0, 2)


def test_a_shard_counts_series_and_their_steps(tmp_path: Path) -> None:
    described = write_series(tmp_path / "all.arrow", ALL)
    assert (described.file, described.rows, described.tokens) == ("all.arrow", 3, 39)
    assert described.size == (tmp_path / "all.arrow").stat().st_size


def test_long_series_are_written_in_several_record_batches(
    splits: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shard, "PIECE_STEPS", 20)
    split = splits(ALL)["train"]
    assert [batch.num_rows for batch in shard.record_batches(tmp_path, split.shards)] == [1, 2]
    assert split.first_steps.tolist() == [0, 20, 32, 39]
    assert (split.shards[0].rows, split.shards[0].tokens) == (3, 39)


def test_a_wrong_number_of_series_is_rejected(splits: Splits) -> None:
    split = splits(ALL)["train"]
    wrong = SeriesSplit(split.path, "train", 4, split.steps, split.covariates, split.shards)
    with pytest.raises(DataError, match="expected 4 rows, got 3"):
        _ = wrong.values


def test_one_record_batch_is_read_without_a_copy(splits: Splits) -> None:
    assert not splits(ALL)["train"].values.flags.owndata
