"""A copy of a run gets an identity of its own; a run that was moved, linked or restored keeps its own."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.runs.identity import original, own_id, settle
from pipeline.runs.run import Run


@pytest.fixture
def made(run: Run) -> Run:
    """A run with one attempt, and with files about its W&B run and its job."""
    run.create(dataset={})
    run.begin_attempt(1, 0)
    (run.path / "wandb").mkdir()
    (run.path / "wandb" / "sent").write_text("1\n")
    (run.path / "jobs.jsonl").write_text(json.dumps({"job": "7"}) + "\n")
    return run


def copy(run: Run, name: str) -> Run:
    return Run(Path(shutil.copytree(run.path, run.path.with_name(name))))


def test_a_copy_is_another_run_in_weights_and_biases_and_slurm(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    copied = copy(made, "two")
    settle(copied)
    again = Run(copied.path).record
    assert again["id"] == again["wandb_id"] != made.record["wandb_id"]
    assert (again["name"], again["path"]) == ("two", str(copied.path))
    assert again["copied_from"] == {"path": str(made.path), "id": own_id(made), "attempts": 1}
    assert not (copied.path / "wandb" / "sent").exists()
    assert not (copied.path / "jobs.jsonl").exists()
    assert capsys.readouterr().out.startswith(f"run two is a copy of {made.path}: its own id is {again['id']}")
    settle(Run(copied.path))
    assert Run(copied.path).record == again
    assert Run(made.path).record == made.record
    assert capsys.readouterr().out == ""


def test_a_moved_or_linked_run_keeps_its_identity(made: Run, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(made.path)
    settle(Run(link))
    assert Run(made.path).record == made.record
    moved = Run(made.path.rename(tmp_path / "moved"))
    settle(moved)
    assert Run(moved.path).record == made.record | {"name": "moved", "path": str(moved.path)}
    Run(made.path).create(dataset={})  # another run takes its former place
    assert original(Run(moved.path)) is None


def test_a_run_of_a_version_that_recorded_no_path_is_compared_by_its_name(made: Run) -> None:
    for key in ("path", "id"):
        del made.record[key]
    made.write()
    settle(Run(made.path))
    copied = copy(made, "two")
    copied.record.pop("path")
    copied.write()
    assert original(copied) == made.path
