"""Episodes become datasets of trajectories; invalid episodes are counted and named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_prep.trajectories import controllers
from pipeline.dataset.environments import KEY_TO_DOOR, KeyToDoor
from pipeline.dataset.trajectories import returns_to_go
from pipeline.errors import ConfigError, DataError
from tests.unit.data_prep.trajectories.rows import Prepare, episodes, lines, whole


def test_a_return_to_go_is_the_sum_of_the_rewards_from_its_step_on(prepare: Prepare, tmp_path: Path) -> None:
    rows = episodes()
    found = whole(prepare(lines(tmp_path, rows)))
    assert len(found) == len(rows)
    for row in rows:
        actions, returns = found[np.array(row["observations"], np.float32).tobytes()]
        assert actions == row["actions"]
        assert returns == pytest.approx([sum(row["rewards"][step:]) for step in range(len(actions))], abs=1e-6)


def test_a_return_to_go_of_many_small_rewards_is_exact() -> None:
    assert returns_to_go(np.full(100_000, 0.1, np.float32))[0] == pytest.approx(
        100_000 * float(np.float32(0.1)), rel=1e-7
    )


def test_all_layouts_give_the_same_episodes(prepare: Prepare, tmp_path: Path) -> None:
    rows = episodes()
    expected = whole(prepare(lines(tmp_path, rows)))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "episodes.parquet")
    assert whole(prepare(tmp_path / "episodes.parquet")) == expected
    ends = np.cumsum([len(row["rewards"]) for row in rows]) - 1
    marks = np.zeros((2, ends[-1] + 1), bool)
    marks[0, ends[::2]] = marks[1, ends[1::2]] = True
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in ("observations", "actions", "rewards")}
    np.savez(tmp_path / "episodes.npz", **arrays, terminals=marks[0], timeouts=marks[1])
    assert whole(prepare(tmp_path / "episodes.npz")) == expected


def test_normalization_and_returns_are_measured_on_training_alone(prepare: Prepare, tmp_path: Path) -> None:
    dataset = prepare(lines(tmp_path, episodes()), "--validation-share", 0.3)
    about, split = dataset.manifest["trajectories"], dataset.splits["train"]
    np.testing.assert_allclose(about["spaces"]["observation_mean"], split.observations.mean(0), rtol=1e-5)
    np.testing.assert_allclose(about["spaces"]["observation_deviation"], split.observations.std(0), rtol=1e-5)
    totals = split.returns[split.first_steps[:-1]]
    assert about["spaces"]["best_return"] == about["returns"]["best"] == totals.max()
    assert about["spaces"]["return_scale"] == np.abs(totals).max()
    assert about["spaces"]["choices"] == 3
    assert about["environment"] is None


def test_invalid_episodes_are_counted_and_named(prepare: Prepare, tmp_path: Path) -> None:
    rows: list[Any] = episodes()
    rows[1]["rewards"].pop()
    rows[2]["observations"][3][1] = float("nan")
    rows[3]["actions"][0] = 3
    rows[4] |= {"terminated": False, "truncated": False}
    rows[5]["observations"] = [[1.0, 2.0, 3.0] for _ in rows[5]["rewards"]]
    del rows[6]["actions"]
    rows[7]["observations"][0] = [1.0]
    rows[8] = '{"observations": [[1, 2'
    rows[9] = {"observations": [], "actions": [], "rewards": []}
    rows[10]["rewards"][0] = float("inf")
    rows[11]["terminated"] = True
    path = lines(tmp_path, rows)
    with pytest.raises(DataError, match=r"--max-bad-share=0.01: 9 of 40 episodes .*first episodes.jsonl:2"):
        prepare(path, "--choices", 3)
    dataset = prepare(path, "--choices", 3, "--max-bad-share", 0.3)
    report = json.loads((dataset.path / "report.json").read_text())
    assert {why: found["first"] for why, found in report["bad"].items()} == {
        "fields of different lengths": ["episodes.jsonl:2 (6 observations, 6 actions, 5 rewards)"],
        "NaN or infinite observations": ["episodes.jsonl:3"],
        "actions out of range": ["episodes.jsonl:4 (choices from 0 to 3)"],
        "incomplete: the last step is neither terminated nor truncated": ["episodes.jsonl:5"],
        "observations of another size": ["episodes.jsonl:6 (3 numbers, expected 2)"],
        "no actions": ["episodes.jsonl:7"],
        "observations of different sizes": ["episodes.jsonl:8"],
        "invalid JSON": [f"{path}:9"],
        "NaN or infinite rewards": ["episodes.jsonl:11"],
    }
    assert (report["episodes_read"], report["empty_skipped"]) == (30, 1)
    assert sum(split.episodes for split in dataset.splits.values()) == 30


def test_steps_after_the_last_terminal_are_an_incomplete_episode(prepare: Prepare, tmp_path: Path) -> None:
    marks = np.arange(100) % 5 == 4
    marks[-1] = False
    arrays = {"observations": np.zeros((100, 2)), "actions": np.zeros((100, 1)), "rewards": np.ones(100)}
    np.savez(tmp_path / "a.npz", **arrays, terminals=marks)
    with pytest.raises(DataError, match=r"1 of 20 episodes are invalid \(incomplete.*first a.npz: steps 95 to 99"):
        prepare(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **arrays, terminals=marks[:-1])
    with pytest.raises(DataError, match=r"different lengths: 1, first a.npz \(100 observations, .*99 terminals\)"):
        prepare(tmp_path / "a.npz")


def test_continuous_actions_have_the_range_that_is_given_or_found(prepare: Prepare, tmp_path: Path) -> None:
    rows = episodes()
    for row in rows:
        row["actions"] = [[step / 10 - 0.2, 0.3] for step in range(len(row["actions"]))]
    path = lines(tmp_path, rows)
    spaces = prepare(path).manifest["trajectories"]["spaces"]
    assert (spaces["choices"], spaces["low"]) == (0, pytest.approx([-0.2, 0.3]))
    spaces = prepare(path, "--action-range", -1, 1).manifest["trajectories"]["spaces"]
    assert (spaces["low"], spaces["high"]) == ([-1, -1], [1, 1])
    with pytest.raises(DataError, match="40 of 40 episodes are invalid"):
        prepare(path, "--action-range", -0.1, 0.1)
    with pytest.raises(DataError, match=r"actions of another size: 40, .* \(2 numbers, expected 1\)"):
        prepare(path, "--environment", "Pendulum-v1")
    path = lines(tmp_path, [{**row, "actions": [[0.5]] * len(row["actions"])} for row in rows])
    with pytest.raises(DataError, match="--environment=Pendulum-v1: expected observations of 3 numbers, got 2"):
        prepare(path, "--environment", "Pendulum-v1")


def test_the_key_is_shown_at_the_start_only_and_rewarded_at_the_door() -> None:
    game = KeyToDoor(keys=3, delay=(2, 5))
    lengths = set()
    for seed in range(50):
        seen, _ = game.reset(seed=seed)
        assert seen[3:].tolist() == [1, 0]
        key, steps, over, reward = int(seen[:3].argmax()), 0, False, 0.0
        while not over:
            assert seen[4] == 0 or not seen[:4].any()
            at_door = bool(seen[4])
            seen, reward, over, _, _ = game.step(1 + (key + seed % 2) % 3)
            steps += 1
            assert over == at_door
            assert over or (reward == 0 and seen[3] == 0)
        assert reward == 1 - seed % 2
        lengths.add(steps)
    assert lengths == {4, 5, 6, 7}


def test_scripted_data_has_mixed_quality_and_is_reproducible(prepare: Prepare) -> None:
    options = ["--delay", 2, 9, "--keys", 4]
    dataset = prepare("builtin:key-to-door:1000", *options)
    found = dataset.manifest["trajectories"]
    # The players who remember the key succeed, and a quarter of the others.
    assert found["returns"] == {"mean": pytest.approx(0.35 + 0.65 / 4, abs=0.04), "worst": 0, "best": 1}
    assert found["environment"] == {"name": KEY_TO_DOOR, "settings": {"keys": 4, "delay": [2, 9]}}
    assert found["spaces"]["choices"] == 5
    split = dataset.splits["train"]
    assert set(np.diff(split.first_steps).tolist()) == set(range(4, 12))
    assert prepare("builtin:key-to-door:1000", *options).checksum == dataset.checksum
    assert prepare("builtin:key-to-door:1000", *options, "--seed", 1).checksum != dataset.checksum


@pytest.mark.parametrize(("name", "good", "bad"), [("CartPole-v1", 400, 60), ("Pendulum-v1", -400, -800)])
def test_controllers_are_good_with_skill_and_bad_without(name: str, good: float, bad: float) -> None:
    played = list(controllers.play(name, {}, 24, seed=0))
    skills = [np.random.default_rng((0, number)).uniform() for number in range(24)]
    totals = [float(one.rewards.sum()) for one in played]
    assert np.mean([total for total, skill in zip(totals, skills, strict=True) if skill > 0.75]) > good
    assert np.mean([total for total, skill in zip(totals, skills, strict=True) if skill < 0.2]) < bad


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("gymnasium:Nothing-v0", [], "Nothing-v0: no controller for this environment. Choose builtin:key-to-door"),
        ("builtin:key-to-door:many", [], "expected a number of episodes after the second colon, got many"),
        ("builtin:key-to-door", ["--delay", 5, 2], "--delay 5 2: the minimum must come first"),
        ("builtin:key-to-door", ["--choices", 3], "--choices is for files, but the source is builtin:key-to-door"),
        ("a.jsonl", ["--choices", 3, "--action-range", 0, 1], "Give one of them"),
        ("a.jsonl", ["--action-range", 1, 0], "--action-range 1 0: expected two finite numbers, the minimum first"),
        ("a.jsonl", ["--action-range", "nan", 0], "--action-range nan 0: expected two finite numbers"),
        ("a.jsonl", ["--action-range", 0, "inf"], "--action-range 0 inf: expected two finite numbers"),
        ("a.jsonl", ["--environment", "Nothing-v0"], "environment Nothing-v0 cannot be created"),
        ("a.jsonl", ["--validation-share", 0.6, "--test-share", 0.5], "the sum must be below 1"),
    ],
)
def test_a_mistake_is_a_one_line_error(prepare: Prepare, source: str, options: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(source, *options)


def test_invalid_files_are_named(prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.jsonl cannot be read: No such file"):
        prepare(tmp_path / "missing.jsonl")
    for name in ("a.parquet", "a.npz"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DataError, match=f"{name} is (damaged|not a)"):
            prepare(tmp_path / name)
    (tmp_path / "a.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match=r"a.hdf5: expected .npz, .jsonl or .parquet, got HDF5. Convert it with h5py"):
        prepare(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match=r"episodes.jsonl is empty"):
        prepare(lines(tmp_path, []))


def test_an_episode_whose_actions_have_another_size_is_named(prepare: Prepare, tmp_path: Path) -> None:
    rows = [{**row, "actions": [[0.5, 0.1]] * len(row["actions"])} for row in episodes()]
    rows[3]["actions"] = [[0.5]] * len(rows[3]["actions"])
    found = prepare(lines(tmp_path, rows), "--max-bad-share", 0.1)
    assert sum(split.episodes for split in found.splits.values()) == 39
    report = json.loads((found.path / "report.json").read_text())
    assert report["bad"]["actions of another size"]["first"] == ["episodes.jsonl:4 (1 numbers, expected 2)"]


def test_the_last_of_the_marks_per_step_decides(prepare: Prepare, tmp_path: Path) -> None:
    def marked(row: dict[str, Any], last: bool) -> dict[str, Any]:
        return {**row, "terminated": [*[False] * (len(row["rewards"]) - 1), last], "truncated": [False]}

    rows = [marked(row, last=number != 3) for number, row in enumerate(episodes())]
    found = prepare(lines(tmp_path, rows), "--max-bad-share", 0.1)
    assert sum(split.episodes for split in found.splits.values()) == 39


def test_single_arrays_and_scalars_are_named(prepare: Prepare, tmp_path: Path) -> None:
    one = tmp_path / "one.npz"
    with one.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"one.npz: expected several named arrays, got one array \(.npy\)"):
        prepare(one)
    np.savez(tmp_path / "numbers.npz", observations=1.0, actions=1, rewards=1.0, terminals=True)
    with pytest.raises(DataError, match=r"observations are not numbers: 1, first numbers.npz \(a single value\)"):
        prepare(tmp_path / "numbers.npz")
    rows = [{**row, "actions": [1] * len(row["actions"])} for row in episodes()]
    with pytest.raises(ConfigError, match=r"observation space .* is not supported: expected an array of numbers"):
        prepare(lines(tmp_path, rows), "--environment", "Blackjack-v1")
