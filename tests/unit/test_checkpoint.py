"""A checkpoint is whole or it is passed over."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import checkpoint
from pipeline.errors import CheckpointError


def save(directory: Path, step: int, **metrics: float) -> Path:
    path = directory / checkpoint.name_of(step)
    about = {"step": step, "metrics": metrics}
    checkpoint.write(path, lambda partial: torch.save({"step": step}, partial / checkpoint.STATE), about)
    return path


def truncate(path: Path) -> None:
    os.truncate(path / checkpoint.STATE, 100)


def flip(path: Path) -> None:
    data = bytearray((path / checkpoint.STATE).read_bytes())
    data[-1] ^= 1
    (path / checkpoint.STATE).write_bytes(data)


def lose_state(path: Path) -> None:
    (path / checkpoint.STATE).unlink()


def lose_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).unlink()


def garble_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).write_text("{")


@pytest.mark.parametrize("damage", [truncate, flip, lose_state, lose_manifest, garble_manifest])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: Any) -> None:
    older, newer = save(tmp_path, 10), save(tmp_path, 20)
    damage(newer)
    told: list[str] = []
    found = checkpoint.latest(tmp_path, told.append)
    assert found is not None
    assert found[0] == older
    assert len(told) == 1
    assert str(newer) in told[0]
    damage(older)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        checkpoint.latest(tmp_path, told.append)


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    older = save(tmp_path, 10)

    def fail(partial: Path) -> None:
        (partial / "state.pt").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.write(tmp_path / checkpoint.name_of(20), fail, {"step": 20})
    assert [path.name for path in tmp_path.iterdir()] == [older.name]


def test_a_failing_disk_does_not_stop_training(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.warns(UserWarning, match="training goes on"):
        checkpoint.CheckpointDirectory().save_checkpoint({"global_step": 3}, blocked / "step-00000003")


def test_the_best_is_the_lowest_metric(tmp_path: Path) -> None:
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
        save(tmp_path, step, **{"val/loss": loss})
    save(tmp_path, 40)
    assert [path.name for _, path in checkpoint.by_metric(tmp_path, "val/loss")] == [
        checkpoint.name_of(step) for step in (20, 30, 10)
    ]


class Malice:
    """What a pickle could do."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_malicious_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / checkpoint.name_of(1)
    checkpoint.write(path, lambda partial: torch.save(Malice(), partial / checkpoint.STATE), {"step": 1})
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        checkpoint.read_state(path)
    assert not (tmp_path / "pwned").exists()


def test_the_manifest_tells_step_and_files(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    assert manifest["step"] == 7
    assert manifest["files"][checkpoint.STATE]["bytes"] == (path / checkpoint.STATE).stat().st_size
