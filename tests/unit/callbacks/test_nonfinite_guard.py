"""A step that would corrupt the weights is skipped and leaves everything as it was."""

import json
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.callbacks.checkpointing import CheckpointSettings
from pipeline.callbacks.nonfinite_guard import GuardSettings
from tests.unit.callbacks.guarded import Task, Zero, make_guard, step, trainer


def test_a_good_step_is_taken() -> None:
    guard, run, task = make_guard(), trainer(), Task()
    assert step(guard, run, task, 2.0)
    assert (task.one.item(), task.two.item()) == (-3.0, -4.0)
    assert task.carried == {0: torch.tensor(2.0)}
    assert task.seen.tokens == 15
    assert guard.row() == {"train/skipped_steps": 0.0}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_leaves_everything_as_it_was(
    loss: float, faults: list[Mapping[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    guard, run, task = make_guard(), trainer(global_step=41), Task()
    assert not step(guard, run, task, loss)
    assert task.two.item() == 0.0
    assert task.carried == {0: torch.tensor(1.0)}
    assert task.seen.tokens == 10
    assert guard.row() == {"train/skipped_steps": 1.0}
    [fault] = faults
    assert fault.keys() == {"fault", "why", "loss", "gradient_norm", "ids", "step"}
    assert (fault["fault"], fault["why"], fault["ids"]) == ("step_skipped", "the loss is not finite", [7, 8])
    assert (str(fault["loss"]), fault["gradient_norm"], fault["step"]) == (str(loss), 5.0, 42)
    assert capsys.readouterr().out == "step 42 skipped: the loss is not finite; 1 in a row\n"
    assert step(guard, run, task, 2.0)


def test_a_skipped_first_step_leaves_a_carried_state_of_zeros() -> None:
    guard, run, task = make_guard(), trainer(), Task()
    task.carried = {}
    assert not step(guard, run, task, math.nan, log=False)
    assert task.carried == {0: torch.tensor(0.0)}


def test_the_host_learns_one_step_later_and_then_waits_until_a_step_is_taken(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(), Task()
    assert step(guard, run, task, 2.0, log=False)
    assert not step(guard, run, task, math.nan, log=False)
    assert (faults, task.carried, task.seen.tokens.item()) == ([], {0: torch.tensor(2.0)}, 15)
    assert not step(guard, run, task, math.nan, log=False)
    assert [(fault["step"], fault["ids"]) for fault in faults] == [(2, [7, 8]), (3, [7, 8])]
    assert (guard.in_a_row, guard.good, guard.vote.keeps_all) == (2, 1, True)
    assert step(guard, run, task, 3.0, log=False)
    assert (guard.in_a_row, guard.good, guard.vote.keeps_all) == (0, -1, False)
    assert step(guard, run, task, 3.0, log=False)
    assert [ballot.step for ballot in guard.vote.pending] == [5]


@pytest.mark.parametrize("settings", [{"patience": 1, "max_rollbacks": 0}, {"spike": 5.0}])
def test_without_patience_and_with_spikes_the_host_reads_every_step(settings: dict[str, Any]) -> None:
    guard, run, task = make_guard(**settings), trainer(), Task()
    assert step(guard, run, task, 2.0, log=False)
    assert not guard.vote.pending


@pytest.mark.usefixtures("faults")
def test_an_optimizer_with_state_on_the_host_is_not_stepped() -> None:
    guard, run, task = make_guard(), trainer(), Task()
    task.optimizer.state[task.one] = {"n_iter": 1}
    assert step(guard, run, task, 2.0, log=False)
    assert not guard.vote.pending
    assert not step(guard, run, task, math.nan, log=False)
    assert task.one.grad is None
    assert guard.refused == 1


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_end"])
def test_every_vote_is_read_before_a_validation_and_at_the_end(hook: str, faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(), Task()
    step(guard, run, task, math.nan, log=False)
    getattr(guard, hook)(run, task)
    assert [fault["step"] for fault in faults] == [1]
    assert not guard.vote.pending


@pytest.mark.usefixtures("faults")
def test_every_vote_is_read_before_a_checkpoint() -> None:
    guard, run, task = make_guard(), trainer(), Task()
    guard.checkpoints.settings = CheckpointSettings(every_steps=3)
    for number, left in ((1, 1), (2, 1), (3, 0), (4, 1)):
        step(guard, run, task, float(number), log=False)
        assert len(guard.vote.pending) == left
    guard.vote.questions["stop"] = lambda _: True
    step(guard, run, task, 5.0, log=False)
    assert not guard.vote.pending
    assert guard.vote.requested == {"stop": 1}


def test_a_step_with_a_non_finite_gradient_is_skipped(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(), Task()
    task.two.grad = torch.tensor(math.inf)
    assert not step(guard, run, task, 2.0)
    assert faults[0]["why"] == "the gradient is not finite"


def test_a_step_of_several_micro_batches_is_skipped_as_a_whole(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(accumulate_grad_batches=2), Task()
    assert step(guard, run, task, 1.0, 2.5)
    assert not step(guard, run, task, 1.0, math.nan)
    assert task.carried == {0: torch.tensor(2.5)}
    assert task.seen.tokens == 20
    assert faults[0]["ids"] == [7, 8, 7, 8]
    assert guard.refused == 1


def test_nothing_is_decided_before_the_last_micro_batch() -> None:
    guard, task = make_guard(), Task()
    run = trainer(accumulate_grad_batches=2, fit_loop=SimpleNamespace(_should_accumulate=lambda: True))
    guard.on_train_batch_start(run, task, SimpleNamespace(ids=torch.tensor([7])), 0)
    guard.on_before_backward(run, task, torch.tensor(math.nan))
    guard.on_before_optimizer_step(run, task, task.optimizer)
    guard.on_train_batch_end(run, task, None, None, 0)
    assert not guard.vote.pending
    assert guard.refused == 0


class TwoProcesses:
    """Two processes that send the same numbers; the other one has its own samples."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values

    def largest(self, *numbers: int) -> list[int]:
        return list(numbers)

    def gather(self, mine: list[int]) -> list[list[int]]:
        return [mine, [100, 101]]


def test_all_processes_skip_a_step_together(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(world_size=2, is_global_zero=False), Task()
    guard.vote.agreement = TwoProcesses()  # type: ignore[assignment]
    guard.vote.questions = {"save": lambda _: True, "stop": lambda _: False, "written": lambda _: True}
    assert step(guard, run, task, 2.0, log=False)
    assert guard.vote.requested == {}  # known one step later
    assert not step(guard, run, task, math.nan, log=False)
    assert guard.vote.requested == {"save": 2, "written": 2}
    assert not guard.vote.pending
    assert faults[0]["ids"] == [7, 8, 100, 101]
    assert str(faults[0]["loss"]) == "nan"
    assert faults[0]["gradient_norm"] == 5.0


@pytest.mark.usefixtures("faults")
def test_only_the_first_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    step(make_guard(), trainer(is_global_zero=False), Task(), math.nan)
    assert capsys.readouterr().out == ""


class Scaler:
    """A loss scaler with the scale 1,024."""

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        return 1024 * value


def test_overflowing_gradients_during_loss_scaling_are_not_skipped(faults: list[Mapping[str, Any]]) -> None:
    run = trainer(precision="16-mixed", precision_plugin=SimpleNamespace(scaler=Scaler()))
    guard, task = make_guard(), Task()
    task.optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    task.two.grad = torch.tensor(math.inf)
    task.optimizer.step = lambda: None  # type: ignore[assignment,method-assign]  # left to the scaler
    step(guard, run, task, 2048.0)
    assert (task.one.grad, task.two.grad) == (torch.tensor(3.0), torch.tensor(math.inf))
    assert guard.refused == 0
    step(guard, run, task, math.nan)
    assert task.one.grad == task.two.grad == math.inf  # so the scaler skips the step
    assert guard.refused == 1
    guard.settings = GuardSettings(spike=1.0, window=3)
    guard.recent = [2.0, 2.0, 2.0]
    step(guard, run, task, 3 * 1024.0)
    assert task.one.grad == math.inf  # a scaler that sees no gradient raises an error
    assert faults[-1]["loss"] == 3.0


def test_zero_drops_the_gradient_itself(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(strategy=Zero()), Task()
    step(guard, run, task, 2.0, log=False)
    assert (run.strategy.refusals, task.carried) == (0, {0: torch.tensor(2.0)})
    step(guard, run, task, math.nan, log=False)  # gradients inside DeepSpeed's optimizer are not touched
    assert (run.strategy.refusals, guard.refused, task.carried) == (1, 1, {0: torch.tensor(2.0)})
    assert faults[-1]["gradient_norm"] == 0.0
    run.strategy.dropped_step = True
    step(guard, run, task, 3.0, log=False)
    assert task.carried == {0: torch.tensor(2.0)}
    assert faults[-1]["why"] == "the gradient is not finite"
    assert faults[-1]["gradient_norm"] == math.inf
    step(guard, run, task, math.nan, log=False)
    assert faults[-1]["why"] == "the loss is not finite"
    run.precision = "16-mixed"  # steps dropped by loss scaling need no report
    step(guard, run, task, 2.0, log=False)
    assert guard.refused == 3


@pytest.mark.numeric
def test_a_spike_is_measured_in_robust_standard_deviations_of_recent_losses(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(spike=4.0, window=5), trainer(), Task()
    for loss in (1.0, 50.0, 2.0, 3.0, 4.0):  # fewer losses than the window: none is a spike
        assert step(guard, run, task, loss)
    # The median of 1 2 3 4 50 is 3, and that of the distances 2 1 0 1 47 is 1.
    high = 3 + 4 * 1.4826
    assert step(guard, run, task, high - 0.01)
    guard.recent = [1.0, 50.0, 2.0, 3.0, 4.0]
    assert not step(guard, run, task, high + 0.01)
    assert faults[0]["why"] == "the loss is a spike (4.0 robust standard deviations)"
    assert guard.recent == [50.0, 2.0, 3.0, 4.0, pytest.approx(high + 0.01)]


@pytest.mark.numeric
def test_nearly_constant_losses_have_no_small_spikes() -> None:
    guard = make_guard(spike=2.0, window=3)
    guard.recent = [-8.0, -8.0, -8.0]
    assert guard._score(-8.0) == 0.0
    assert guard._score(-7.992) == pytest.approx(1.0)  # the smallest deviation is a thousandth of the median
    guard.recent = [0.0, 0.0, 0.0]
    assert guard._score(1e-12) == pytest.approx(1.0)
    guard.recent = []
    assert guard._score(5.0) == 0.0


def test_without_spike_detection_no_losses_are_stored() -> None:
    guard, run, task = make_guard(window=3), trainer(), Task()
    for loss in (1.0, 1.0, 1.0, 1000.0):
        assert step(guard, run, task, loss)
    assert guard.recent == []


@pytest.mark.usefixtures("faults")
def test_a_non_finite_loss_is_not_stored_among_the_recent_ones() -> None:
    guard, run, task = make_guard(spike=5.0), trainer(), Task()
    step(guard, run, task, math.nan)
    assert guard.recent == []


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"max_rollbacks": -1}, {"window": 2}, {"spike": 0.0}])
def test_numbers_that_are_too_small_are_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_guard(**wrong)
    make_guard(patience=1, max_rollbacks=0, window=3, spike=0.5)


def test_the_defaults_are_as_documented() -> None:
    assert GuardSettings() == GuardSettings(patience=5, max_rollbacks=3, spike=None, window=100)


def test_the_state_continues_in_the_next_attempt() -> None:
    guard = make_guard()
    assert guard.state_dict() == {"refused": 0, "in_a_row": 0, "returned": 0, "good": -1, "recent": []}
    guard.refused, guard.in_a_row, guard.returned, guard.good, guard.recent = 4, 2, 1, 30, [1.0, 2.0]
    other = make_guard()
    other.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert other.state_dict() == guard.state_dict()
    assert other.vote.keeps_all is True
    other.load_state_dict({**guard.state_dict(), "in_a_row": 0})
    assert other.vote.keeps_all is False
