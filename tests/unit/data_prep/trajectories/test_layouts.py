"""Rows in the layouts of other libraries, stated facts, and records that contradict themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.dataset.manifest import Dataset
from pipeline.errors import DataError
from tests.unit.data_prep.trajectories.rows import Prepare, episodes, lines, whole

ANY_SHARE = ["--max-bad-share", 0.99]


def report(dataset: Dataset, kind: str = "bad") -> dict[str, list[str]]:
    found = json.loads((dataset.path / "report.json").read_text()).get(kind, {})
    return {reason: entry["first"] for reason, entry in found.items()}


def minari(row: dict[str, Any], number: int) -> dict[str, Any]:
    """Return an episode with the observation after the last action, and the facts that Minari states."""
    steps = len(row["rewards"])
    return {
        **row,
        "id": number,
        "seed": 7,
        "total_steps": steps,
        "observations": [*row["observations"], [9.0, 9.0]],
        "terminations": [False] * (steps - 1) + [number % 2 == 0],
        "truncations": [False] * (steps - 1) + [number % 2 == 1],
    }


def rlds(row: dict[str, Any]) -> dict[str, Any]:
    """Return an episode as a list of steps, of which the last has an observation alone."""
    fields = zip(row["observations"], row["actions"], row["rewards"], strict=True)
    steps: list[dict[str, Any]] = [
        {"observation": seen, "action": action, "reward": reward, "is_first": number == 0, "is_last": False}
        for number, (seen, action, reward) in enumerate(fields)
    ]
    return {"steps": [*steps, {"observation": [9.0, 9.0], "action": 0, "reward": 0.0, "is_last": True}]}


@pytest.mark.parametrize("layout", ["minari", "rlds", "columns", "list"])
def test_a_layout_gives_the_same_episodes(prepare: Prepare, tmp_path: Path, layout: str) -> None:
    rows = episodes()
    expected = whole(prepare(lines(tmp_path, rows)))
    if layout == "list":
        (tmp_path / "list.json").write_text(json.dumps(rows))
        assert whole(prepare(tmp_path / "list.json")) == expected
        return
    made = {
        "minari": [minari(row, number) for number, row in enumerate(rows)],
        "rlds": [rlds(row) for row in rows],
        "columns": [{**row, "rewards": [[reward] for reward in row["rewards"]]} for row in rows],
    }[layout]
    assert whole(prepare(lines(tmp_path, made))) == expected
    parquet.write_table(pa.Table.from_pylist(made), tmp_path / "episodes.parquet")
    assert whole(prepare(tmp_path / "episodes.parquet")) == expected


@pytest.mark.parametrize("mark", ["terminated", "truncateds", "timeout"])
def test_marks_inside_a_row_cut_it_as_in_arrays(prepare: Prepare, tmp_path: Path, mark: str) -> None:
    rows = episodes()
    expected = whole(prepare(lines(tmp_path, rows)))
    joined = []
    for one, two in zip(rows[::2], rows[1::2], strict=True):
        both: dict[str, Any] = {field: [*one[field], *two[field]] for field in one}
        ends = [step in (len(one["rewards"]) - 1, len(both["rewards"]) - 1) for step in range(len(both["rewards"]))]
        joined.append({**both, mark: ends})
    dataset = prepare(lines(tmp_path, joined))
    assert whole(dataset) == expected
    assert report(dataset, "noted")["one of several episodes of a record"][:2] == [
        "episodes.jsonl:1: steps 0 to 4",
        "episodes.jsonl:1: steps 5 to 10",
    ]
    for row in joined:
        row[mark][-1] = False
    dataset = prepare(lines(tmp_path, joined), *ANY_SHARE)
    assert sum(split.episodes for split in dataset.splits.values()) == 20
    assert list(report(dataset)) == ["incomplete: the last step is neither terminated nor truncated"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rewards": [1.0, None, 1.0, 1.0, 1.0]}, "null in rewards"),
        ({"rewards": [1.0, True, 1.0, 1.0, 1.0]}, "rewards are not numbers"),
        ({"rewards": [True] * 5}, "rewards are not numbers"),
        ({"rewards": ["1"] * 5}, "rewards are not numbers"),
        ({"rewards": "11111"}, "rewards are not numbers"),
        ({"rewards": 5}, "rewards are not numbers"),
        ({"rewards": [[1.0, 2.0]] * 5}, "rewards with more than one number per step"),
        ({"rewards": [1e39] * 5}, "rewards beyond the range of float32"),
        ({"rewards": [1e38] * 5}, "returns beyond the range of float32"),
        ({"rewards": [2**70] * 5}, "rewards are not numbers"),
        ({"observations": [[1.0, 2.0], None] + [[1.0, 2.0]] * 3}, "observations of different sizes"),
        ({"observations": [[1.0, None]] * 5}, "null in observations"),
        ({"observations": [[[1.0], [2.0, 3.0]]] * 5}, "observations of different sizes"),
        ({"observations": [[]] * 5}, "observations without a number"),
        ({"observations": {"position": [[1.0]] * 5}}, "observations are not numbers"),
        ({"observations": [{"position": 1.0}] * 5}, "observations are not numbers"),
        ({"actions": [0, 1, True, 0, 1]}, "actions are not numbers"),
        ({"actions": [0, 1, 0.5, 0, 1]}, "actions of another kind"),
        ({"actions": [[0, 1]] * 5}, "actions of another kind"),
        ({"actions": [-1, 0, 1, 0, 1]}, "actions out of range"),
        ({"terminated": "False"}, "terminated are not numbers"),
        ({"terminated": [0, 0, 0, 0, 2]}, "terminated other than true and false"),
        ({"dones": [False] * 5}, "incomplete: the last step is neither terminated nor truncated"),
        ({"truncations": [False, True]}, "fields of different lengths"),
        ({"total_steps": 6}, "total_steps other than found in the steps"),
        ({"total_return": 1e6}, "total_return other than found in the steps"),
        ({"total_return": float("nan")}, "total_return other than found in the steps"),
        ({"total_return": "six"}, "total_return are not numbers"),
        ({"id": [1]}, "id that is neither text nor a whole number"),
        ({"id": "a\nb"}, "id that is neither text nor a whole number"),
        ({"steps": [1]}, "steps that are not a list of objects"),
        ({"steps": [{"is_last": True}, {}]}, "a first or last step inside the steps"),
        ({"steps": [{"is_terminal": True}, {}]}, "a first or last step inside the steps"),
        ({"is_last": [False] * 4 + [True]}, "is_last outside of steps"),
        ({"episode_starts": [True, False, True, False, False]}, "episode_starts outside of steps"),
    ],
)
def test_a_row_that_cannot_be_an_episode_is_named(
    prepare: Prepare, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = episodes()
    rows[3] = {**episodes(1)[0], **change}
    dataset = prepare(lines(tmp_path, rows), *ANY_SHARE)
    [(found, [name])] = report(dataset).items()
    assert found == reason
    assert name.startswith("episodes.jsonl:4")


def test_reasons_are_grouped_in_one_line_of_limited_length(prepare: Prepare, tmp_path: Path) -> None:
    rows = [{**row, "rewards": row["rewards"][: 1 + number % 4]} for number, row in enumerate(episodes(200))]
    with pytest.raises(DataError) as caught:
        prepare(lines(tmp_path, rows))
    assert "200 of 200 episodes are invalid (fields of different lengths: 200, first episodes.jsonl:1" in str(caught)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_stated_names_and_returns_are_read(prepare: Prepare, tmp_path: Path) -> None:
    rows = [
        {**row, "id": f"é{number // 2}", "total_return": round(sum(row["rewards"]), 4)}
        for number, row in enumerate(episodes())
    ]
    dataset = prepare(lines(tmp_path, rows))
    assert len(whole(dataset)) == 40
    assert len(report(dataset, "noted")["name or id of an earlier episode"]) == 20


def test_arrays_of_columns_and_of_objects(prepare: Prepare, tmp_path: Path) -> None:
    rows = episodes()
    expected = whole(prepare(lines(tmp_path, rows)))
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in ("observations", "actions", "rewards")}
    ends = np.zeros((len(arrays["rewards"]), 1), np.float32)
    ends[np.cumsum([len(row["rewards"]) for row in rows]) - 1] = 1
    columns = {**arrays, "actions": arrays["actions"][:, None], "rewards": arrays["rewards"][:, None]}
    np.savez(tmp_path / "columns.npz", **columns, terminals=ends)
    assert whole(prepare(tmp_path / "columns.npz")) == expected
    np.savez(tmp_path / "objects.npz", **{**arrays, "actions": arrays["actions"].astype(object)}, terminals=ends)
    with pytest.raises(DataError, match=r"objects.npz is damaged or not a .npz file of numbers \(Object arrays"):
        prepare(tmp_path / "objects.npz")
    np.savez(tmp_path / "open.npz", **arrays)
    with pytest.raises(DataError, match=r"open.npz has no array terminals, only observations, actions, rewards"):
        prepare(tmp_path / "open.npz")
