"""Signals and failures during training cost a run at most the steps since its last valid checkpoint."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch

from pipeline.callbacks.fault_injection import BeforeBatch, WhileSaving
from pipeline.runs import journal
from pipeline.runs.run import Run
from pipeline.tasks.language_model import LanguageModel
from tests.distributed.fixture_types import Fit, Inject, State
from tests.distributed.spoiling.runs import OFTEN, Apart, steps, whole

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
READ_ONLY, AGAIN, BIND, ALL, PRIVATE = 1, 32, 4096, 16384, 1 << 18  # MS_RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE


def test_a_closed_terminal_and_repeated_interrupts_only_stop_the_run(fit: Fit, state: State) -> None:
    assert fit("stopped", *OFTEN, die=(signal.SIGHUP, 8)) == 75
    twice = [BeforeBatch(signal.SIGINT, step=9), WhileSaving(signal.SIGINT, step=10, done=2)]
    callbacks = json.dumps([each.config() for each in twice])
    assert fit("stopped", *OFTEN, "trainer.callbacks", callbacks) == 75
    assert fit("stopped", *OFTEN) == 0
    assert [each["start_step"] for each in Run(Path("runs/stopped")).record["attempts"]] == [0, 8, 9, 10]
    whole(state)


def test_training_continues_when_its_output_is_closed(fit: Fit, state: State, apart: Apart) -> None:
    def work() -> int:
        read, write = os.pipe()
        os.close(read)
        for number in (1, 2):
            os.dup2(write, number)
        return fit("stopped", *OFTEN)

    assert apart(work) == 0
    whole(state)


@pytest.fixture
def at_step_eleven(monkeypatch: pytest.MonkeyPatch) -> Inject:
    """Call a function in the last process before its eleventh step, in every attempt that reaches it."""
    straight = LanguageModel.training_step

    def do(work: Callable[[], None]) -> None:
        def training_step(self: LanguageModel, batch: object, batch_idx: int) -> torch.Tensor:
            if self.trainer.global_step == 10 and self.trainer.global_rank == self.trainer.world_size - 1:
                work()
            return straight(self, batch, batch_idx)

        monkeypatch.setattr(LanguageModel, "training_step", training_step)

    return do


def test_the_processes_end_with_the_one_that_started_them(fit: Fit, state: State, at_step_eleven: Inject) -> None:
    two = [*OFTEN, "trainer.devices", 2]
    shutil.rmtree("runs/straight")
    assert fit("straight", *two) == 0

    def kill_the_parent() -> None:
        if not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)

    at_step_eleven(kill_the_parent)
    assert fit("two", *two) == 128 + signal.SIGKILL
    assert fit("two", *two) == 0  # the lock was released
    whole(state, "two")


def test_files_that_vanish_during_training_are_written_again(fit: Fit, state: State, at_step_eleven: Inject) -> None:
    def tidy_up() -> None:
        shutil.rmtree("runs/stopped/checkpoints")
        Path("runs/stopped/run.json").unlink()

    at_step_eleven(tidy_up)
    assert fit("stopped", *OFTEN) == 0
    whole(state)
    assert steps() == [14, 13]  # the best one was deleted too
    assert Run(Path("runs/stopped")).record["attempts"][-1]["exit_code"] == 0


def test_the_clock_may_jump(fit: Fit, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = count()
    monkeypatch.setattr(time, "time", lambda: 2e9 - 1e5 * next(numbers))
    assert fit("stopped", *OFTEN, "checkpoints.every_minutes", 0.001) == 0
    whole(state)


def test_the_newest_and_the_best_checkpoints_are_kept(fit: Fit) -> None:
    keys = ["trainer.val_check_interval", 3, "checkpoints.keep_best", 2, "checkpoints.metric", "val/perplexity"]
    assert fit("kept", *OFTEN, *keys, "checkpoints.keep_last", 1, "trainer.max_steps", 11) == 0
    measured = journal.read_journal(Path("runs/kept")).series("val/perplexity")
    best = sorted(zip(measured.values, measured.steps, strict=True))[:2]
    assert measured.steps == [3, 6, 9, 11]
    assert set(steps("kept")) == {11} | {step for _, step in best}
    assert len(steps("kept")) == 2


def test_a_checkpoint_is_due_after_minutes_and_its_stall_is_reported(fit: Fit) -> None:
    keys = ["checkpoints.every_steps", "null", "checkpoints.keep_last", 99, "trainer.val_check_interval", 100]
    assert fit("rarely", *keys, "checkpoints.every_minutes", "null") == 0
    assert fit("often", *keys, "checkpoints.every_minutes", 1e-9) == 0
    assert (steps("rarely"), steps("often")) == ([14], list(range(14, 0, -1)))
    stalls = [
        journal.read_journal(Path("runs") / name).series("train/checkpoint_stall") for name in ("rarely", "often")
    ]
    assert [each.steps for each in stalls] == [list(range(2, 15, 2))] * 2
    assert set(stalls[0].values) == {0.0}
    assert all(seconds > 0 for seconds in stalls[1].values[1:])


def test_validations_and_ends_of_epochs_come_between_steps(fit: Fit, state: State) -> None:
    keys = [*OFTEN, "trainer.limit_train_batches", 0.31, "trainer.val_check_interval", 0.7]
    keys += ["trainer.check_val_every_n_epoch", 1, "checkpoints.keep_last", 99, "model.init_args.dropout", 0.0]
    ways = {"one": 16, "four": 4}  # micro-batches per step: one, four
    for name, limit in ways.items():
        assert fit(name, *keys, "data.init_args.per_device_batch_size", limit) == 0
    validated = [journal.read_journal(Path("runs") / name).series("val/loss") for name in ways]
    assert validated[0].steps == validated[1].steps
    assert len(validated[0].steps) > 2
    assert validated[1].values == pytest.approx(validated[0].values, rel=1e-5)
    assert fit("cut", *keys, "data.init_args.per_device_batch_size", 4, die=(signal.SIGKILL, 6)) != 0
    assert fit("cut", *keys, "data.init_args.per_device_batch_size", 4) == 0
    for one, two in zip(
        *(torch.utils._pytree.tree_leaves(state(n)["state_dict"]) for n in ("four", "cut")), strict=True
    ):
        assert torch.equal(one, two)
