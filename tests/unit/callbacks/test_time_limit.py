"""A time limit counts the seconds of training over all attempts, and is checked between two optimizer steps."""

from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest

from pipeline.callbacks.step_vote import StepVote
from pipeline.callbacks.time_limit import TimeLimit
from pipeline.callbacks.train_metrics import Monitor
from pipeline.errors import ConfigError
from pipeline.optim import WarmupCosine
from pipeline.training.trainer import _time_limit


def trainer(accumulate_grad_batches: int = 1) -> Mock:
    made = Mock(spec=pl.Trainer, should_stop=False, loggers=[], global_step=0)
    made.strategy = SimpleNamespace(broadcast=lambda value: value)
    made.accumulate_grad_batches, made.train_dataloader = accumulate_grad_batches, None
    made.world_size, made.is_global_zero = 1, True
    return made


@pytest.mark.parametrize(("before", "stops"), [(9.99, False), (10.0, True)])
@pytest.mark.parametrize("limit", [{"seconds": 10}, "00:00:00:10"])
def test_the_seconds_of_earlier_attempts_count(
    limit: str | timedelta | dict[str, int], before: float, stops: bool
) -> None:
    monitor, run = Monitor(attempt=2), trainer()
    monitor.load_state_dict({"tokens": 0, "seconds": before})
    TimeLimit(limit, monitor, StepVote()).on_fit_start(run)
    assert run.should_stop is stops


def test_time_before_training_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [5.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monitor = Monitor()
    clock[0] = 7.5
    assert monitor.trained() == 0.0
    monitor.on_train_start(trainer(), Mock(spec=pl.LightningModule))
    clock[0] = 8.0
    assert monitor.trained() == 0.5


def test_a_step_of_two_micro_batches_is_completed() -> None:
    monitor, run = Monitor(), trainer(accumulate_grad_batches=2)
    monitor.seconds = 11.0
    limit = TimeLimit({"seconds": 10}, monitor, StepVote())
    limit.on_train_batch_end(run, Mock(spec=pl.LightningModule), None, None, 0)
    assert run.should_stop is False
    limit.on_train_batch_end(run, Mock(spec=pl.LightningModule), None, None, 1)
    assert run.should_stop is True


def test_several_processes_agree_by_the_clock_of_the_first() -> None:
    monitor, vote, run, task = Monitor(), StepVote(), trainer(), Mock(spec=pl.LightningModule)
    monitor.seconds, run.world_size = 11.0, 2
    limit = TimeLimit({"seconds": 10}, monitor, vote)
    limit.on_train_batch_end(run, task, None, None, 0)
    assert run.should_stop is False  # the result of the vote is not known yet
    assert vote.questions["end"](run) is True
    run.is_global_zero = False
    assert vote.questions["end"](run) is False
    vote.requested["end"] = 1
    limit.on_train_batch_end(run, task, None, None, 1)
    assert run.should_stop is True


def test_a_schedule_without_a_last_step_stays_at_its_peak() -> None:
    schedule = WarmupCosine(warmup_steps=4)
    assert [schedule.scale(step, 0, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("limit", ["3 hours", {"hour": 3}])
def test_an_invalid_limit_is_rejected_in_one_line(limit: str | timedelta | dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_time=.*expected DD:HH:MM:SS"):
        _time_limit(limit, Monitor(), StepVote())
    assert _time_limit(None, Monitor(), StepVote()) == []


def test_a_validation_and_its_pictures_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monitor, run = Monitor(), trainer()
    run.state, run.sanity_checking, run.callback_metrics = SimpleNamespace(fn="fit"), False, {}
    monitor.on_train_start(run, Mock(spec=pl.LightningModule))
    clock[0] = 2.0
    monitor.on_validation_start(run, Mock(spec=pl.LightningModule))
    clock[0] = 5.0
    monitor.on_validation_end(run, Mock(spec=pl.LightningModule))
    clock[0] = 9.0  # other callbacks draw and save
    assert monitor.state_dict()["seconds"] == 1.0
    monitor.on_train_batch_start(run, Mock(spec=pl.LightningModule), None, 1)
    clock[0] = 9.5
    assert monitor.trained() == 1.5
