"""A step that would corrupt the weights is skipped and leaves everything as it was."""

import json
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.callbacks.nonfinite_guard import GuardSettings
from pipeline.callbacks.step_vote import Requests
from tests.unit.callbacks.guarded import Task, Zero, make_guard, step, trainer


def test_a_good_step_is_taken() -> None:
    guard, run, task = make_guard(), trainer(), Task()
    assert step(guard, run, task, 2.0)
    assert guard.vote.verdict[:2] == (2.0, 5.0)
    assert task.carried == {0: "after 2.0"}
    assert task.seen.tokens == 15
    assert guard.row() == {"train/skipped_steps": 0.0}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_leaves_everything_as_it_was(
    loss: float, faults: list[Mapping[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    guard, run, task = make_guard(), trainer(global_step=41), Task()
    assert not step(guard, run, task, loss)
    assert task.one.grad is None
    assert task.two.grad is None
    assert task.carried == {0: "before"}
    assert task.seen.tokens == 10
    assert guard.row() == {"train/skipped_steps": 1.0}
    [fault] = faults
    assert fault.keys() == {"fault", "why", "loss", "gradient_norm", "ids"}
    assert (fault["fault"], fault["why"], fault["ids"]) == ("step_skipped", "the loss is not finite", [7, 8])
    assert (str(fault["loss"]), fault["gradient_norm"]) == (str(loss), 5.0)
    assert capsys.readouterr().out == "step 42 skipped: the loss is not finite; 1 in a row\n"
    task.one.grad = task.two.grad = torch.tensor(1.0)
    assert step(guard, run, task, 2.0)


def test_a_step_with_a_non_finite_gradient_is_skipped(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(), Task()
    task.two.grad = torch.tensor(math.inf)
    assert not step(guard, run, task, 2.0)
    assert faults[0]["why"] == "the gradient is not finite"


def test_a_step_of_several_micro_batches_is_skipped_as_a_whole(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(accumulate_grad_batches=2), Task()
    assert step(guard, run, task, 1.0, 2.5)
    assert guard.vote.verdict.loss == 3.5
    task.carried = {0: "before"}
    assert not step(guard, run, task, 1.0, math.nan)
    assert task.carried == {0: "before"}
    assert task.seen.tokens == 20
    assert faults[0]["ids"] == [7, 8, 7, 8]
    assert guard.refused == 1


def test_nothing_is_decided_before_the_last_micro_batch() -> None:
    guard, task = make_guard(), Task()
    run = trainer(accumulate_grad_batches=2, fit_loop=SimpleNamespace(_should_accumulate=lambda: True))
    assert step(guard, run, task, math.nan)
    assert guard.vote.verdict.loss == 0.0
    assert guard.refused == 0


class TwoProcesses:
    """Two processes that send the same numbers; the other one has its own samples."""

    def total(self, *numbers: float) -> list[float]:
        return [2 * number for number in numbers]

    def largest(self, *numbers: int) -> list[int]:
        return list(numbers)

    def gather(self, mine: list[int]) -> list[list[int]]:
        return [mine, [100, 101]]


def test_all_processes_skip_a_step_together(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(world_size=2, is_global_zero=False), Task()
    guard.vote.agreement = TwoProcesses()  # type: ignore[assignment]
    guard.checkpoints.requests = lambda trainer: Requests(True, False, True)  # type: ignore[method-assign]
    assert step(guard, run, task, 2.0)
    assert guard.vote.verdict[:2] == (2.0, 5.0)
    assert guard.vote.verdict[2:] == (True, False, True)
    assert not step(guard, run, task, math.nan)
    assert faults[0]["ids"] == [7, 8, 100, 101]


@pytest.mark.usefixtures("faults")
def test_only_the_first_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    step(make_guard(), trainer(is_global_zero=False), Task(), math.nan)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("faults")
def test_overflowing_gradients_during_loss_scaling_are_not_skipped() -> None:
    scaler = SimpleNamespace(get_scale=lambda: 1024.0)
    run = trainer(precision="16-mixed", precision_plugin=SimpleNamespace(scaler=scaler))
    guard, task = make_guard(), Task()
    task.two.grad = torch.tensor(math.inf)
    assert step(guard, run, task, 2048.0)
    assert guard.vote.verdict.loss == 2.0
    assert guard.refused == 0
    step(guard, run, task, math.nan)  # left to the scaler, which skips the step itself
    assert task.one.grad == task.two.grad == math.inf
    assert guard.refused == 1


def test_zero_drops_the_gradient_itself(faults: list[Mapping[str, Any]]) -> None:
    guard, run, task = make_guard(), trainer(strategy=Zero()), Task()
    assert step(guard, run, task, 2.0)
    assert (run.strategy.refusals, guard.vote.verdict.norm) == (0, 0.0)
    assert step(guard, run, task, math.nan)  # gradients inside DeepSpeed's optimizer are not touched
    assert (run.strategy.refusals, guard.refused) == (1, 1)
    run.strategy.dropped_step = True
    step(guard, run, task, 2.0)
    assert faults[-1]["why"] == "the gradient is not finite"
    assert faults[-1]["gradient_norm"] == math.inf
    step(guard, run, task, math.nan)
    assert faults[-1]["why"] == "the loss is not finite"
    run.precision = "16-mixed"  # steps dropped by loss scaling need no report
    step(guard, run, task, 2.0)
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
