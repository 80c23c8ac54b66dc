"""If a process dies, hangs or exits, the others stop soon and write their stacks to the run's directory."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.tasks.language_model import LanguageModel
from tests.distributed.fixture_types import Fit, Inject
from tests.timeouts import scaled

TWO = ["trainer.devices", 2, "watchdog.patience", 8.0]  # a slow disk can block all processes for seconds


@pytest.fixture
def last_process_does(monkeypatch: pytest.MonkeyPatch) -> Inject:
    """Call a function in the last process of a run in its fifth step."""
    straight = LanguageModel.training_step

    def does(work: Callable[[], None]) -> None:
        def training_step(self: LanguageModel, batch: object, batch_idx: int) -> torch.Tensor:
            if self.trainer.global_step == 4 and self.trainer.global_rank == self.trainer.world_size - 1:
                Path("broke").touch()
                work()
            return straight(self, batch, batch_idx)

        monkeypatch.setattr(LanguageModel, "training_step", training_step)

    return does


def stacks(run: str) -> dict[int, str]:
    """Return the stacks that each process has written, by rank."""
    found = {path: path.read_text() for path in sorted((Path("runs") / run / "stacks").glob("*.txt"))}
    return {int(path.stem[-5:]): text for path, text in found.items() if text}


def wait_forever() -> None:
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
    ("work", "code", "written_by"),
    [
        (wait_forever, 8, {0, 1}),
        (out_of_memory, 5, {0, 1}),
        (stop_itself, 7, {0}),
        (kill_itself, 128 + signal.SIGKILL, {0}),
        (leave_silently, 7, {0}),
    ],
)
def test_the_others_stop_soon_and_tell_where_they_stood(
    fit: Fit,
    last_process_does: Inject,
    capfd: pytest.CaptureFixture[str],
    work: Callable[[], None],
    code: int,
    written_by: set[int],
) -> None:
    last_process_does(work)
    assert fit("broken", *TWO) == code
    assert time.time() - Path("broke").stat().st_mtime < scaled(30)
    written = stacks("broken")
    assert set(written) == written_by
    assert all("all_reduce" in text or "backward" in text or "training_step" in text for text in written.values())
    if work is wait_forever:
        assert "wait_forever" in written[1]
    if work is out_of_memory:  # the advice is printed whichever process ran out of memory
        assert "per_device_batch_size" in capfd.readouterr().err


def test_a_whole_run_leaves_no_stacks(fit: Fit) -> None:
    assert fit("whole", *TWO) == 0
    assert list(Path("runs/whole/stacks").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("work", "codes"), [(wait_forever, (8, 8)), (kill_itself, (7, 137))])
def test_processes_that_another_launcher_started_watch_each_other_too(
    fit: Fit,
    last_process_does: Inject,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[], None],
    codes: tuple[int, int],
) -> None:
    assert fit("broken", "trainer.max_steps", 2) == 0  # creates a run to continue
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
