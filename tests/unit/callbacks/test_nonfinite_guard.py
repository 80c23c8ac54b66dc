"""A step that would spoil the weights is refused and leaves everything as it was; several in a row lead back."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from pipeline.callbacks import nonfinite_guard as guards
from pipeline.callbacks.averaging import WeightAverage
from pipeline.callbacks.nonfinite_guard import Guard
from pipeline.distributed import snapshot
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.strategies.zero import ZeRO
from pipeline.errors import NonFiniteError


class Seen:
    """A metric that counts the tokens read."""

    def __init__(self) -> None:
        self.tokens = torch.tensor(10)

    @property
    def metric_state(self) -> dict[str, torch.Tensor]:
        return {"tokens": self.tokens}


class Task(pl.LightningModule):
    """A task of two parameters whose gradients are 3 and 4."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))
        self.one.grad, self.two.grad = torch.tensor(3.0), torch.tensor(4.0)
        self.carried: dict[int, Any] = {0: "before"}
        self.seen = Seen()

    def measure_gradient(self) -> torch.Tensor:
        return torch.stack([self.one.grad, self.two.grad]).norm()


class Zero(ZeRO):
    """DeepSpeed's strategy without DeepSpeed."""

    dropped = False

    def __init__(self) -> None:
        self.refusals = 0

    def refuse(self) -> None:
        self.refusals += 1


def trainer(**changed: Any) -> Any:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}, {"lr": 0.25}])
    found = Mock(spec=pl.Trainer, accumulate_grad_batches=1, world_size=1, global_step=0, precision="32-true")
    found.configure_mock(loggers=[], is_global_zero=True, optimizers=[optimizer], callbacks=[], strategy=object())
    found.precision_plugin = SimpleNamespace()
    found.fit_loop = SimpleNamespace(_should_accumulate=lambda: False)
    found.configure_mock(**changed)
    return found


def step(guard: Guard, run: Any, task: Task, *losses: float, ids: tuple[int, ...] = (7, 8)) -> bool:
    """One optimizer step of micro-batches with these losses; return whether it was taken."""
    for index, loss in enumerate(losses):
        guard.on_train_batch_start(run, task, SimpleNamespace(ids=torch.tensor(ids)), index)
        task.carried = {0: f"after {loss}"}
        task.seen.tokens += 5  # in place
        guard.on_before_backward(run, task, torch.tensor(loss))
    guard.on_before_optimizer_step(run, task, None)
    kept = task.one.grad is not None
    run.global_step += 1
    for index, _ in enumerate(losses):
        guard.on_train_batch_end(run, task, None, None, index)
    return kept


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the guard writes to the journal."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(guards, "tell", lambda trainer, fault: found.append(fault))
    return found


def test_a_good_step_is_taken() -> None:
    guard, run, task = Guard(), trainer(), Task()
    assert step(guard, run, task, 2.0)
    assert (guard.loss, guard.norm) == (2.0, 5.0)
    assert task.carried == {0: "after 2.0"}
    assert task.seen.tokens == 15
    assert guard.row() == {"train/refused_steps": 0.0}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(
    loss: float, told: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    guard, run, task = Guard(), trainer(global_step=41), Task()
    assert not step(guard, run, task, loss)
    assert task.one.grad is None
    assert task.two.grad is None
    assert task.carried == {0: "before"}
    assert task.seen.tokens == 10
    assert guard.row() == {"train/refused_steps": 1.0}
    [fault] = told
    assert fault.keys() == {"fault", "why", "loss", "gradient_norm", "ids"}
    assert (fault["fault"], fault["why"], fault["ids"]) == ("step refused", "the loss is not finite", [7, 8])
    assert (str(fault["loss"]), fault["gradient_norm"]) == (str(loss), 5.0)
    assert capsys.readouterr().out == "step 42 not taken: the loss is not finite; 1 in a row\n"
    task.one.grad = task.two.grad = torch.tensor(1.0)
    assert step(guard, run, task, 2.0)


def test_a_gradient_that_is_not_finite_refuses_the_step(told: list[Any]) -> None:
    guard, run, task = Guard(), trainer(), Task()
    task.two.grad = torch.tensor(math.inf)
    assert not step(guard, run, task, 2.0)
    assert told[0]["why"] == "the gradient is not finite"


def test_a_step_of_several_micro_batches_is_refused_as_a_whole(told: list[Any]) -> None:
    guard, run, task = Guard(), trainer(accumulate_grad_batches=2), Task()
    assert step(guard, run, task, 1.0, 2.5)
    assert guard.loss == 3.5
    task.carried = {0: "before"}
    assert not step(guard, run, task, 1.0, math.nan)
    assert task.carried == {0: "before"}
    assert task.seen.tokens == 20
    assert told[0]["ids"] == [7, 8, 7, 8]
    assert guard.refused == 1


def test_nothing_is_decided_before_the_last_micro_batch() -> None:
    guard, task = Guard(), Task()
    run = trainer(accumulate_grad_batches=2, fit_loop=SimpleNamespace(_should_accumulate=lambda: True))
    assert step(guard, run, task, math.nan)
    assert guard.loss == 0.0
    assert guard.refused == 0


class TwoProcesses:
    """Two processes that send the same numbers, of which the other has its own samples."""

    def total(self, *numbers: float) -> list[float]:
        return [2 * number for number in numbers]

    def largest(self, *numbers: int) -> list[int]:
        return list(numbers)

    def everyone(self, mine: Any) -> list[Any]:
        return [mine, [100, 101]]


def test_all_processes_refuse_together(told: list[Any]) -> None:
    guard, run, task = Guard(), trainer(world_size=2, is_global_zero=False), Task()
    guard.checkpoints.agreement = TwoProcesses()  # type: ignore[assignment]
    guard.checkpoints.wishes = lambda trainer: (1.0, 0.0, 1.0)  # type: ignore[method-assign]
    assert step(guard, run, task, 2.0)
    assert (guard.loss, guard.norm) == (2.0, 5.0)
    assert guard.checkpoints.heard == (2.0, 0.0, 2.0)
    assert not step(guard, run, task, math.nan)
    assert told[0]["ids"] == [7, 8, 100, 101]


def test_the_first_process_alone_prints(told: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    step(Guard(), trainer(is_global_zero=False), Task(), math.nan)
    assert capsys.readouterr().out == ""


def test_a_loss_scale_finds_its_measure_by_gradients_that_overflow(told: list[Any]) -> None:
    scaler = SimpleNamespace(get_scale=lambda: 1024.0)
    run = trainer(precision="16-mixed", precision_plugin=SimpleNamespace(scaler=scaler))
    guard, task = Guard(), Task()
    task.two.grad = torch.tensor(math.inf)
    assert step(guard, run, task, 2048.0)
    assert guard.loss == 2.0
    assert guard.refused == 0
    step(guard, run, task, math.nan)  # the scaler is to skip this step by itself
    assert task.one.grad == task.two.grad == math.inf
    assert guard.refused == 1


def test_zero_drops_the_gradient_itself(told: list[Any]) -> None:
    guard, run, task = Guard(), trainer(strategy=Zero()), Task()
    assert step(guard, run, task, 2.0)
    assert (run.strategy.refusals, guard.norm) == (0, 0.0)
    assert step(guard, run, task, math.nan)  # what an optimizer of DeepSpeed holds is not touched here
    assert (run.strategy.refusals, guard.refused) == (1, 1)
    run.strategy.dropped = True
    step(guard, run, task, 2.0)
    assert told[-1]["why"] == "the gradient is not finite"
    assert told[-1]["gradient_norm"] == math.inf
    step(guard, run, task, math.nan)
    assert told[-1]["why"] == "the loss is not finite"
    run.precision = "16-mixed"  # its loss scale drops steps that need no report
    step(guard, run, task, 2.0)
    assert guard.refused == 3


@pytest.mark.numeric
def test_a_spike_is_measured_in_robust_standard_deviations_of_recent_losses(told: list[Any]) -> None:
    guard, run, task = Guard(spike=4.0, window=5), trainer(), Task()
    for loss in (1.0, 50.0, 2.0, 3.0, 4.0):  # while there are few losses, none is a spike
        assert step(guard, run, task, loss)
    # the median of 1 2 3 4 50 is 3, of the distances 2 1 0 1 47 it is 1
    high = 3 + 4 * 1.4826
    assert step(guard, run, task, high - 0.01)
    guard.recent = [1.0, 50.0, 2.0, 3.0, 4.0]
    assert not step(guard, run, task, high + 0.01)
    assert told[0]["why"] == "the loss is a spike (4.0 robust standard deviations)"
    assert guard.recent == [50.0, 2.0, 3.0, 4.0, pytest.approx(high + 0.01)]


@pytest.mark.numeric
def test_losses_that_hardly_move_have_no_small_spikes(told: list[Any]) -> None:
    guard = Guard(spike=2.0, window=3)
    guard.recent = [-8.0, -8.0, -8.0]
    assert guard._score(-8.0) == 0.0
    assert guard._score(-7.992) == pytest.approx(1.0)  # a thousandth of the median is the least deviation
    guard.recent = [0.0, 0.0, 0.0]
    assert guard._score(1e-12) == pytest.approx(1.0)
    guard.recent = []
    assert guard._score(5.0) == 0.0


def test_without_spikes_no_losses_are_kept() -> None:
    guard, run, task = Guard(window=3), trainer(), Task()
    for loss in (1.0, 1.0, 1.0, 1000.0):
        assert step(guard, run, task, loss)
    assert guard.recent == []


def test_a_loss_that_is_not_finite_is_not_one_of_the_recent_ones(told: list[Any]) -> None:
    guard, run, task = Guard(spike=5.0), trainer(), Task()
    step(guard, run, task, math.nan)
    assert guard.recent == []


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"returns": -1}, {"window": 2}, {"spike": 0.0}])
def test_numbers_that_are_too_small_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Guard(**wrong)
    Guard(patience=1, returns=0, window=3, spike=0.5)


def test_the_defaults_are_the_documented_ones() -> None:
    guard = Guard()
    assert (guard.patience, guard.returns, guard.spike, guard.window) == (5, 3, None, 100)


def test_its_state_continues_in_another_attempt() -> None:
    guard = Guard()
    assert guard.state_dict() == {"refused": 0, "in_a_row": 0, "returned": 0, "good": -1, "recent": []}
    guard.refused, guard.in_a_row, guard.returned, guard.good, guard.recent = 4, 2, 1, 30, [1.0, 2.0]
    other = Guard()
    other.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert other.state_dict() == guard.state_dict()
    assert other.checkpoints.forgets is False
    other.load_state_dict({**guard.state_dict(), "in_a_row": 0})
    assert other.checkpoints.forgets is True


class Average(WeightAverage):
    """Writes down how it was restored."""

    state_key = "Average"
    calls: list[tuple[str, Any]]

    def share(self) -> float:
        return 0.5

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        self.calls = [("checkpoint", checkpoint["averaged"])]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls.append(("state", state_dict))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.calls.append(("start", None))


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The checkpoints that were gone back to; reading one sets the learning rates to 9."""
    found: list[Path] = []

    def put_back(trainer: Any, directory: Path) -> dict[str, Any]:
        found.append(directory)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 9.0
        return {"averaged": "weights", "callbacks": {"Average": {"count": 3}}}

    monkeypatch.setattr(snapshot, "put_back", put_back)
    return found


def save(directory: Path, *steps: int) -> None:
    for number in steps:
        made = directory / checkpoint.name_of(number)
        made.mkdir(parents=True)
        (made / checkpoint.MANIFEST).write_text('{"files": {}}')


def refuse(guard: Guard, run: Any, task: Task, times: int) -> None:
    for _ in range(times):
        task.one.grad = task.two.grad = torch.tensor(1.0)
        step(guard, run, task, math.nan)


def test_several_refused_steps_in_a_row_lead_back_to_the_newest_checkpoint_before_them(
    told: list[Any], restored: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    average, run, task = Average(), trainer(global_step=20), Task()
    run.callbacks = [Guard(), average]
    guard = Guard(patience=3)
    guard.checkpoints.directory = tmp_path
    save(tmp_path, 10, 19, 20, 22)
    refuse(guard, run, task, 2)
    assert restored == []
    assert guard.checkpoints.forgets is False
    refuse(guard, run, task, 1)
    assert restored == [tmp_path / "step-00000019"]  # 20 is the step before which the trouble began
    assert [group["lr"] for group in run.optimizers[0].param_groups] == [0.5, 0.25]
    assert task.carried == {}
    assert average.calls == [("checkpoint", "weights"), ("state", {"count": 3}), ("start", None)]
    assert guard.state_dict() == {"refused": 3, "in_a_row": 0, "returned": 1, "good": 19, "recent": []}
    assert told[-1] == {"fault": "went back", "weights_of_step": 19, "passed_over": 4}
    assert "step 23: went back to the weights of step 19\n" in capsys.readouterr().out


def test_going_back_again_takes_an_older_checkpoint_until_a_step_is_taken(
    told: list[Any], restored: list[Path], tmp_path: Path
) -> None:
    guard, run, task = Guard(patience=2), trainer(global_step=20), Task()
    guard.checkpoints.directory = tmp_path
    save(tmp_path, 10, 15, 19, 23)
    refuse(guard, run, task, 4)
    assert [path.name for path in restored] == ["step-00000019", "step-00000015"]
    task.one.grad = task.two.grad = torch.tensor(1.0)
    assert step(guard, run, task, 2.0)
    assert guard.checkpoints.forgets is True
    refuse(guard, run, task, 2)  # begins at step 25
    assert restored[-1].name == "step-00000023"


def test_a_damaged_checkpoint_is_passed_over(
    told: list[Any], restored: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guard, run = Guard(patience=1), trainer(global_step=20)
    guard.checkpoints.directory = tmp_path
    save(tmp_path, 10, 15)
    (tmp_path / "step-00000015" / checkpoint.MANIFEST).write_text("{")
    refuse(guard, run, Task(), 1)
    assert [path.name for path in restored] == ["step-00000010"]
    assert "checkpoint passed over: " in capsys.readouterr().out


def test_without_a_checkpoint_the_run_ends(told: list[Any], restored: list[Path], tmp_path: Path) -> None:
    guard, run = Guard(patience=2), trainer(global_step=20)
    guard.checkpoints.directory = tmp_path
    save(tmp_path, 20)
    with pytest.raises(NonFiniteError, match=r"2 steps in a row .* step 22 \(the loss is not finite\), and no earlier"):
        refuse(guard, run, Task(), 2)
    assert restored == []


def test_a_run_that_went_back_too_often_ends(told: list[Any], restored: list[Path], tmp_path: Path) -> None:
    guard, run = Guard(patience=1, returns=2), trainer(global_step=20)
    guard.checkpoints.directory = tmp_path
    save(tmp_path, 0, 1, 2, 3)
    refuse(guard, run, Task(), 2)
    with pytest.raises(NonFiniteError, match="it went back 2 times"):
        refuse(guard, run, Task(), 1)
    assert len(restored) == 2


def test_the_checkpoint_of_step_0_is_one_to_go_back_to(told: list[Any], restored: list[Path], tmp_path: Path) -> None:
    save(tmp_path, 0)
    for returns in (1, 0):
        guard, run = Guard(patience=1, returns=returns), trainer(global_step=20)
        guard.checkpoints.directory = tmp_path
        if returns:
            refuse(guard, run, Task(), 1)
            continue
        with pytest.raises(NonFiniteError, match="it went back 0 times"):
            refuse(guard, run, Task(), 1)
    assert restored == [tmp_path / "step-00000000"]


def test_the_first_process_chooses_for_all(told: list[Any], restored: list[Path], tmp_path: Path) -> None:
    guard, run = Guard(patience=1), trainer(global_step=20, is_global_zero=False)
    guard.checkpoints.directory = tmp_path
    save(tmp_path, 10)
    with pytest.raises(NonFiniteError, match="no earlier checkpoint"):
        refuse(guard, run, Task(), 1)  # alone it chose nothing
    guard, run = Guard(patience=1), trainer(global_step=20, is_global_zero=False)
    guard.checkpoints.directory = tmp_path
    guard.checkpoints.agreement.largest = lambda *numbers: [max(number, 10) for number in numbers]  # type: ignore[method-assign]
    refuse(guard, run, Task(), 1)
    assert restored == [tmp_path / "step-00000010"]


def test_a_save_under_way_is_finished_before_going_back(told: list[Any], restored: list[Path], tmp_path: Path) -> None:
    guard, run = Guard(patience=1), trainer(global_step=20)
    guard.checkpoints.directory = tmp_path
    guard.checkpoints.finish = lambda trainer: save(tmp_path, trainer.global_step - 2)  # type: ignore[method-assign]
    refuse(guard, run, Task(), 1)
    assert [path.name for path in restored] == ["step-00000019"]
