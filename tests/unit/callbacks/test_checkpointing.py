"""A failure to remove an old checkpoint does not make the new one unsaved, and a failed save leaves nothing behind."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from pipeline.callbacks.checkpointing import Checkpoints, CheckpointSettings
from pipeline.callbacks.step_vote import StepVote
from pipeline.distributed.checkpoint import directory as checkpoint


def finished(callback: Checkpoints, step: int) -> Path:
    """Write the checkpoint of a step and let the callback publish it."""

    def save(own: Path) -> None:
        torch.save({"step": step}, own / checkpoint.STATE)

    place = callback.directory / checkpoint.checkpoint_name(step)
    callback.writing, callback.saved_step = checkpoint.Writing(place, save, 0), step
    callback.about = {"step": step, "metrics": {}}
    callback.finish(Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False))
    return place


@pytest.fixture
def keeper(tmp_path: Path) -> Checkpoints:
    """A callback that keeps one checkpoint."""
    return Checkpoints(CheckpointSettings(keep_last=1), StepVote(), tmp_path / "run" / "checkpoints")


def test_an_old_checkpoint_that_cannot_be_removed_does_not_make_the_new_one_unsaved(
    keeper: Checkpoints, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = finished(keeper, 1)

    def fail(directory: Path) -> None:
        raise OSError(39, "Directory not empty", str(directory))

    monkeypatch.setattr(checkpoint, "remove", fail)
    second = finished(keeper, 2)
    assert keeper.saved_step == 2
    assert checkpoint.verify_checkpoint(second)["step"] == 2
    assert first.exists()
    assert "an older checkpoint could not be removed" in capsys.readouterr().out


def test_nothing_is_left_of_a_failed_save_when_the_others_are_informed(
    keeper: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[list[Path]] = []

    def inspect(*numbers: int) -> list[int]:
        left.append([*keeper.directory.glob(".*")])
        return list(numbers)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr(keeper.agreement, "largest", inspect)
    finished(keeper, 3)
    assert keeper.saved_step == -1
    assert left[-1] == []
