"""Kinds of actions, scales of observations, and copies of episodes."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.trajectories.actions import Bounds
from data_prep.trajectories.episodes import InvalidEpisode, _numbers
from data_prep.trajectories.fitting import content
from data_prep.workspace.report import Report
from data_prep.workspace.splits import by_identity, cut
from pipeline.data.trajectories import TrajectoriesDataModule
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.trajectories import Episode
from pipeline.errors import DataError
from pipeline.models.lstm import LSTM
from pipeline.tasks.policy import Policy
from tests.unit.data_prep.trajectories.rows import Prepare, episodes, lines, whole

ANY_SHARE = ["--max-bad-share", 0.99]
KIND = "actions of another kind"


def with_actions(change: Any) -> list[dict[str, Any]]:
    return [{**row, "actions": [change(action) for action in row["actions"]]} for row in episodes()]


def spaces(dataset: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = dataset.manifest["trajectories"]["spaces"]
    return found


def bad(dataset: Dataset) -> dict[str, int]:
    report = json.loads((dataset.path / "report.json").read_text())
    return {reason: entry["count"] for reason, entry in report["bad"].items()}


@pytest.mark.parametrize("change", [int, float, lambda action: [action], lambda action: [float(action)]])
def test_whole_numbers_are_choices(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any
) -> None:
    dataset = prepare(lines(tmp_path, with_actions(change)))
    assert (spaces(dataset)["choices"], dataset.splits["train"].action) == (3, 0)
    assert whole(dataset) == whole(prepare(lines(tmp_path, episodes())))
    assert "actions: 3 choices; observations: 2 numbers\n" in capsys.readouterr().out


def test_true_and_false_are_two_choices(prepare: Prepare, tmp_path: Path) -> None:
    assert spaces(prepare(lines(tmp_path, with_actions(bool))))["choices"] == 2


def test_choices_that_do_not_occur_are_printed(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(lines(tmp_path, with_actions(lambda action: action + 1)))
    assert "actions: 4 choices, of which 3 occur; " in capsys.readouterr().out
    path = lines(tmp_path, with_actions(lambda action: 1000 * action))
    with pytest.raises(DataError, match="expected choices from 0, got whole numbers up to 2,000 in 239 steps"):
        prepare(path)
    assert spaces(prepare(path, "--choices", 2001))["choices"] == 2001
    assert spaces(prepare(path, "--action-range", 0, 2000))["high"] == [2000]


def test_an_option_decides_the_kind_of_actions(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = prepare(lines(tmp_path, episodes()), "--action-range", 0, 2)
    assert (spaces(dataset)["choices"], spaces(dataset)["high"], dataset.splits["train"].action) == (0, [2], 1)
    assert "actions: 1 number from 0 to 2; " in capsys.readouterr().out
    with pytest.raises(DataError, match=rf"{KIND}: 40, first episodes.jsonl:1 \(numbers, expected choices\)"):
        prepare(lines(tmp_path, with_actions(lambda action: action + 0.5)), "--choices", 4)


def test_the_kind_of_most_episodes_is_that_of_the_dataset(prepare: Prepare, tmp_path: Path) -> None:
    rows = episodes()
    for row in rows[:2]:
        row["actions"] = [0.5] * len(row["actions"])
    dataset = prepare(lines(tmp_path, rows), *ANY_SHARE)
    assert (bad(dataset), spaces(dataset)["choices"]) == ({KIND: 2}, 3)
    rows = with_actions(lambda action: action / 2)
    rows[0]["actions"] = [1] * len(rows[0]["actions"])
    rows[1]["actions"] = [1.0] * len(rows[1]["actions"])  # a number as the others
    dataset = prepare(lines(tmp_path, rows), *ANY_SHARE)
    assert (bad(dataset), spaces(dataset)["high"]) == ({KIND: 1}, [1.0])


def test_small_actions_keep_their_range(prepare: Prepare, tmp_path: Path) -> None:
    found = spaces(prepare(lines(tmp_path, with_actions(lambda action: [1e-6 * action, 5.0]))))
    assert found["low"] == pytest.approx([0, 5])
    assert found["high"] == pytest.approx([2e-6, 5.005])


def test_actions_that_are_constant_in_float32_are_noted(prepare: Prepare, tmp_path: Path) -> None:
    dataset = prepare(lines(tmp_path, with_actions(lambda action: [action, 1e9 + 0.1 * action, 5.0])))
    report = json.loads((dataset.path / "report.json").read_text())
    expected = {"count": 2, "first": ["number 2 of 3", "number 3 of 3"]}
    assert report["noted"] == {"action that is constant in training": expected}


def test_most_observations_have_the_size_of_the_dataset(prepare: Prepare, tmp_path: Path) -> None:
    rows = episodes()
    rows[0]["observations"] = [[1.0]] * len(rows[0]["rewards"])
    assert bad(prepare(lines(tmp_path, rows), *ANY_SHARE)) == {"observations of another size": 1}


def test_three_episodes_suffice_for_three_splits(prepare: Prepare, tmp_path: Path) -> None:
    dataset = prepare(lines(tmp_path, episodes(3)))
    assert [split.episodes for split in dataset.splits.values()] == [1, 1, 1]
    report = json.loads((dataset.path / "report.json").read_text())["noted"]
    assert all(reason.endswith("split, which was empty") for reason in report)


def test_constant_means_relative_to_the_scale(prepare: Prepare, tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(1), episodes()
    for row in rows:
        noise = draw.standard_normal((len(row["rewards"]), 4))
        row["observations"] = (noise * [1e-5, 0, 0.01, 1] + [0, 0.1, 1e9, 0]).tolist()
    dataset = prepare(lines(tmp_path, rows))
    assert spaces(dataset)["observation_deviation"] == pytest.approx([1e-5, 1, 0.01, 1], rel=0.2)
    report = json.loads((dataset.path / "report.json").read_text())
    assert report["noted"] == {"observation that is constant in training": {"count": 1, "first": ["number 2 of 4"]}}


def test_small_changes_of_large_observations_reach_the_network(prepare: Prepare, tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(1), episodes()
    for row in rows:
        row["observations"] = (1e9 + draw.standard_normal((len(row["rewards"]), 2))).tolist()
    dataset = prepare(lines(tmp_path, rows))
    samples = TrajectoriesDataModule(dataset.path, global_batch_size=8).samples("train")
    batch = samples.batch(np.arange(len(samples)))
    seen = Policy(LSTM(width=8, depth=1), spaces(dataset)).standardise(batch.observations)[batch.inside]
    split = dataset.splits["train"].observations
    expected = (split - split.mean(0)) / split.std(0)
    np.testing.assert_allclose(seen.numpy(), expected, atol=1e-5)
    assert seen.std(0).tolist() == pytest.approx([1, 1], abs=0.01)


def test_observations_below_the_range_of_float32_are_kept(prepare: Prepare, tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(1), episodes()
    for row in rows:
        row["observations"] = (1e-45 * draw.standard_normal((len(row["rewards"]), 1))).tolist()
    dataset = prepare(lines(tmp_path, rows))
    assert spaces(dataset)["observation_deviation"] == pytest.approx([1e-45], rel=0.2)


def test_ordinary_observations_are_stored_in_float32(prepare: Prepare, tmp_path: Path) -> None:
    assert prepare(lines(tmp_path, episodes())).splits["train"].observations.dtype == np.float32


def test_copies_are_counted_and_stay_in_one_split(prepare: Prepare, tmp_path: Path) -> None:
    rows = [{**row, "name": f"{row['name']} again"} for row in named()] + named()
    dataset = prepare(lines(tmp_path, rows), "--validation-share", 0.3)
    assert len(whole(dataset)) == 40
    report = json.loads((dataset.path / "report.json").read_text())["noted"]["copy of an earlier episode"]
    assert (report["count"], report["first"][0]) == (40, "0 (0 again)")


def named() -> list[dict[str, Any]]:
    return [{**row, "name": str(number)} for number, row in enumerate(episodes())]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 0.4), st.floats(0, 0.4))
@settings(max_examples=200)
def test_no_episode_is_in_two_splits(contents: list[int], validation: float, test: float) -> None:
    report, copies = Report("episodes"), "copy of an earlier episode"
    made = [
        Episode(f"{number}", np.full((2, 1), content, np.float32), np.arange(2), np.zeros(2, np.float32))
        for number, content in enumerate(contents)
    ]
    shares = {"validation": validation, "test": test}
    splits = cut({"train": made}, shares, partial(by_identity, report, content))
    found = [{float(one.observations[0, 0]) for one in split} for split in splits.values()]
    assert sum(map(len, found)) == len(set(contents))
    assert sum(map(len, splits.values())) == len(contents)
    assert report.noted[copies] == len(contents) - len(set(contents))
    assert len(set(contents)) < 3 or all(splits[name] for name, share in shares.items() if share)


@given(st.lists(st.one_of(st.integers(), st.floats(), st.booleans()), min_size=1, max_size=5))
def test_any_numbers_become_actions_or_a_reason(values: list[float]) -> None:
    try:
        actions = _numbers("actions", values)
    except InvalidEpisode:
        return
    one = Episode("a", np.zeros((len(values), 1), np.float32), actions, np.zeros(len(values), np.float32))
    if not (np.abs(actions.astype(np.float64)) < 3e38).all():  # rejected before
        return
    bounds = Bounds()
    try:
        found = bounds.as_choices(actions) if bounds.are_choices([one]) else bounds.as_numbers(actions, 1)
    except InvalidEpisode:
        return
    expected = [int(value) if found.ndim == 1 else [np.float32(value)] for value in values]
    assert found.tolist() == expected
