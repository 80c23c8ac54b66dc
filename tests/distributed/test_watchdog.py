"""A process that dies, hangs or leaves makes the others stop soon, and their stacks are in the run's directory."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.tasks.language_model import LanguageModel
from tests.timeouts import scaled

Fit = Callable[..., int]
TWO = ["trainer.devices", 2, "watchdog.patience", 8.0]  # a slow disk holds all of them for seconds


@pytest.fixture
def last_process_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have the last process of a run do something in the middle of its fifth step."""
    straight = LanguageModel.training_step

    def does(work: Callable[[], None]) -> None:
        def training_step(self: LanguageModel, batch: Any, batch_idx: int) -> Any:
            if self.trainer.global_step == 4 and self.trainer.global_rank == self.trainer.world_size - 1:
                Path("broke").touch()
                work()
            return straight(self, batch, batch_idx)

        monkeypatch.setattr(LanguageModel, "training_step", training_step)

    return does


def stacks(run: str) -> dict[int, str]:
    """What each process wrote down, by rank."""
    found = {path: path.read_text() for path in sorted((Path("runs") / run / "stacks").glob("*.txt"))}
    return {int(path.stem[-5:]): text for path, text in found.items() if text}


def wait_for_ever() -> None:
    time.sleep(600)


def out_of_memory() -> None:
    raise MemoryError


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave_silently() -> None:
    os._exit(0)


@pytest.mark.parametrize(
    ("work", "code", "told_by"),
    [
        (wait_for_ever, 8, {0, 1}),
        (out_of_memory, 5, {0, 1}),
        (stop_itself, 7, {0}),
        (kill_itself, 128 + signal.SIGKILL, {0}),
        (leave_silently, 7, {0}),
    ],
)
def test_the_others_stop_soon_and_tell_where_they_stood(
    fit: Fit, last_process_does: Any, work: Callable[[], None], code: int, told_by: set[int]
) -> None:
    last_process_does(work)
    assert fit("broken", *TWO) == code
    assert time.time() - Path("broke").stat().st_mtime < scaled(30)
    told = stacks("broken")
    assert set(told) == told_by
    assert all("all_reduce" in text or "backward" in text or "training_step" in text for text in told.values())
    if work is wait_for_ever:
        assert "wait_for_ever" in told[1]


def test_the_advice_is_heard_whichever_process_ran_out_of_memory(
    fit: Fit, last_process_does: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    last_process_does(out_of_memory)
    assert fit("broken", *TWO) == 5
    assert "per_device_batch_size" in capfd.readouterr().err


def test_a_whole_run_leaves_no_stacks(fit: Fit) -> None:
    assert fit("whole", *TWO) == 0
    assert list(Path("runs/whole/stacks").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("work", "codes"), [(wait_for_ever, (8, 8)), (kill_itself, (7, 137))])
def test_processes_that_another_launcher_started_watch_each_other_too(
    fit: Fit, last_process_does: Any, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None], codes: tuple[int, int]
) -> None:
    assert fit("broken", "trainer.max_steps", 2) == 0  # so that there is a run to continue
    last_process_does(work)
    elastic = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "none"}
    for name, value in {**elastic, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    other = os.fork()
    if other == 0:
        os.setsid()
        os.environ.update(RANK="1", LOCAL_RANK="1")
        os._exit(fit("broken", *TWO))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert fit("broken", *TWO) == codes[0]
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == codes[1]
    assert "training_step" in stacks("broken")[0] or "backward" in stacks("broken")[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
