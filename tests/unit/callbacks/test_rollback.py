"""Several skipped steps in a row cause a rollback to an earlier checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from pipeline.callbacks.averaging import WeightAverage
from pipeline.callbacks.nonfinite_guard import Guard
from pipeline.distributed import snapshot
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.errors import NonFiniteError
from tests.unit.callbacks.guarded import Task, make_guard, step, trainer


class Average(WeightAverage):
    """Records how it is restored."""

    state_key = "Average"
    calls: list[tuple[str, object]]

    def share(self) -> float:
        return 0.5

    def on_load_checkpoint(self, trainer: object, pl_module: object, checkpoint: dict[str, object]) -> None:
        self.calls = [("checkpoint", checkpoint["averaged"])]

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.calls.append(("state", state_dict))

    def on_train_start(self, trainer: object, pl_module: object) -> None:
        self.calls.append(("start", None))


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checkpoints that rollbacks loaded; each load sets the learning rates to 9."""
    found: list[Path] = []

    def put_back(trainer: Mock, directory: Path) -> dict[str, object]:
        found.append(directory)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 9.0
        return {"averaged": "weights", "callbacks": {"Average": {"count": 3}}}

    monkeypatch.setattr(snapshot, "put_back", put_back)
    return found


def save(directory: Path, *steps: int) -> None:
    for number in steps:
        made = directory / checkpoint.checkpoint_name(number)
        made.mkdir(parents=True)
        (made / checkpoint.MANIFEST).write_text('{"files": {}}')


def skip(guard: Guard, run: Mock, task: Task, times: int) -> None:
    for _ in range(times):
        task.one.grad = task.two.grad = torch.tensor(1.0)
        step(guard, run, task, math.nan)


def test_several_skipped_steps_in_a_row_roll_back_to_the_newest_checkpoint_before_them(
    faults: list[Mapping[str, Any]], restored: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    average, run, task = Average(), trainer(global_step=20), Task()
    run.callbacks = [make_guard(), average]
    guard = make_guard(tmp_path, patience=3)
    save(tmp_path, 10, 19, 20, 22)
    skip(guard, run, task, 2)
    assert restored == []
    assert guard.vote.keeps_all is True
    skip(guard, run, task, 1)
    assert restored == [tmp_path / "step-00000019"]  # 20 is the last step before the first skipped one
    assert [group["lr"] for group in run.optimizers[0].param_groups] == [0.5, 0.25]
    assert task.carried == {}
    assert average.calls == [("checkpoint", "weights"), ("state", {"count": 3}), ("start", None)]
    assert guard.state_dict() == {"refused": 3, "in_a_row": 0, "returned": 1, "good": 19, "recent": []}
    assert faults[-1] == {"fault": "rolled_back", "weights_of_step": 19, "passed_over": 4}
    assert "step 23: rolled back to the weights of step 19\n" in capsys.readouterr().out


@pytest.mark.usefixtures("faults")
def test_a_second_rollback_takes_an_older_checkpoint_until_a_step_is_taken(
    restored: list[Path], tmp_path: Path
) -> None:
    guard, run, task = make_guard(tmp_path, patience=2), trainer(global_step=20), Task()
    save(tmp_path, 10, 15, 19, 23)
    skip(guard, run, task, 4)
    assert [path.name for path in restored] == ["step-00000019", "step-00000015"]
    task.one.grad = task.two.grad = torch.tensor(1.0)
    assert step(guard, run, task, 2.0)
    assert guard.vote.keeps_all is False
    skip(guard, run, task, 2)  # begins at step 25
    assert restored[-1].name == "step-00000023"


@pytest.mark.usefixtures("faults")
def test_a_damaged_checkpoint_is_skipped(
    restored: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, run = make_guard(tmp_path, patience=1), trainer(global_step=20)
    save(tmp_path, 10, 15)
    (tmp_path / "step-00000015" / checkpoint.MANIFEST).write_text("{")
    skip(guard, run, Task(), 1)
    assert [path.name for path in restored] == ["step-00000010"]
    assert "checkpoint skipped: " in capsys.readouterr().out


@pytest.mark.usefixtures("faults")
def test_without_a_checkpoint_the_run_fails(restored: list[Path], tmp_path: Path) -> None:
    guard, run = make_guard(tmp_path, patience=2), trainer(global_step=20)
    save(tmp_path, 20)
    with pytest.raises(NonFiniteError, match=r"2 steps in a row .* step 22 \(the loss is not finite\), and no earlier"):
        skip(guard, run, Task(), 2)
    assert restored == []


@pytest.mark.usefixtures("faults")
def test_too_many_rollbacks_fail_the_run(restored: list[Path], tmp_path: Path) -> None:
    guard, run = make_guard(tmp_path, patience=1, max_rollbacks=2), trainer(global_step=20)
    save(tmp_path, 0, 1, 2, 3)
    skip(guard, run, Task(), 2)
    with pytest.raises(NonFiniteError, match="the run was rolled back 2 times"):
        skip(guard, run, Task(), 1)
    assert len(restored) == 2


@pytest.mark.usefixtures("faults")
def test_a_rollback_to_the_checkpoint_of_step_0_is_possible(restored: list[Path], tmp_path: Path) -> None:
    save(tmp_path, 0)
    for returns in (1, 0):
        guard, run = make_guard(tmp_path, patience=1, max_rollbacks=returns), trainer(global_step=20)
        if returns:
            skip(guard, run, Task(), 1)
            continue
        with pytest.raises(NonFiniteError, match="the run was rolled back 0 times"):
            skip(guard, run, Task(), 1)
    assert restored == [tmp_path / "step-00000000"]


@pytest.mark.usefixtures("faults")
def test_the_first_process_chooses_for_all(restored: list[Path], tmp_path: Path) -> None:
    guard, run = make_guard(tmp_path, patience=1), trainer(global_step=20, is_global_zero=False)
    save(tmp_path, 10)
    with pytest.raises(NonFiniteError, match="no earlier checkpoint"):
        skip(guard, run, Task(), 1)  # this process alone finds nothing
    guard, run = make_guard(tmp_path, patience=1), trainer(global_step=20, is_global_zero=False)
    guard.vote.agreement.largest = lambda *numbers: [max(number, 10) for number in numbers]  # type: ignore[method-assign]
    skip(guard, run, Task(), 1)
    assert restored == [tmp_path / "step-00000010"]


@pytest.mark.usefixtures("faults")
def test_a_save_in_progress_is_finished_before_a_rollback(restored: list[Path], tmp_path: Path) -> None:
    guard, run = make_guard(tmp_path, patience=1), trainer(global_step=20)
    guard.checkpoints.finish = lambda trainer: save(tmp_path, trainer.global_step - 2)  # type: ignore[method-assign]
    skip(guard, run, Task(), 1)
    assert [path.name for path in restored] == ["step-00000019"]
