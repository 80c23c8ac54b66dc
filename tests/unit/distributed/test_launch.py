"""The exit code of a run is that of the process that failed first for a cause of its own."""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.distributed import exit_code, signals
from pipeline.distributed.launch import supervise
from pipeline.errors import TRY_AGAIN, ConfigError
from tests.timeouts import scaled

LOST, HANG, MEMORY = 7, 8, 5


def leave(code: int, after: float = 0.0) -> Callable[[], None]:
    def work() -> None:
        time.sleep(after)
        os._exit(code)

    return work


def die(after: float = 0.0) -> Callable[[], None]:
    def work() -> None:
        time.sleep(after)
        os.kill(os.getpid(), signal.SIGKILL)

    return work


@pytest.mark.parametrize(
    ("works", "code"),
    [
        ([leave(0), leave(0)], 0),
        ([leave(75), leave(75)], 75),
        ([leave(0), leave(75, 0.1)], 75),
        ([leave(MEMORY, 0.1), leave(LOST)], MEMORY),
        ([leave(LOST), die(0.1)], 128 + signal.SIGKILL),
        ([leave(HANG), leave(LOST, 0.1)], HANG),
        ([leave(3), leave(4, 0.1)], 3),
    ],
)
def test_the_exit_code_is_that_of_the_cause(works: list[Callable[[], None]], code: int) -> None:
    assert supervise(len(works), by_rank(*works)) == code


def by_rank(*works: Callable[[], None]) -> Callable[[], int]:
    """Return work that depends on the rank of the process."""

    def work() -> int:
        works[int(os.environ["LOCAL_RANK"])]()
        return 0

    return work


def test_a_process_that_waits_for_a_killed_one_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.distributed.launch.GRACE", 0.2)
    began = time.monotonic()
    assert supervise(2, by_rank(die(), leave(0, 60.0))) == 128 + signal.SIGKILL
    assert time.monotonic() - began < min(scaled(5.0), 50.0)  # without waiting for the other process


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (ConfigError("width=0: expected at least 1"), 2, "unroll: error: width=0: expected at least 1\n"),
        (signals.Stopped(), TRY_AGAIN, ""),
        (ZeroDivisionError("of a bug"), 1, "Traceback (most recent call last):\n"),
    ],
)
def test_an_error_ends_its_process_as_it_ends_the_command(
    error: BaseException, code: int, printed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert supervise(2, by_rank(fail(error), leave(0))) == code
    assert capfd.readouterr().err.startswith(printed)


def test_only_the_parent_runs_what_follows_and_a_child_ends_as_the_interpreter_does(tmp_path: Path) -> None:
    seen, before = tmp_path / "seen", dict(os.environ)

    def write(word: str) -> None:
        with seen.open("a") as file:
            print(os.environ["LOCAL_RANK"], word, file=file)

    def work() -> int:
        threading.Thread(target=lambda: (time.sleep(0.2), write("thread"))).start()
        atexit.register(write, "handler")
        return 3

    atexit.register(write, "handler of the parent")
    try:
        assert supervise(2, work) == 3
    finally:
        atexit.unregister(write)
    assert sorted(seen.read_text().splitlines()) == ["0 handler", "0 thread", "1 handler", "1 thread"]
    assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks up a process in /proc")
def test_loader_workers_end_with_the_process_that_forked_them(tmp_path: Path) -> None:
    started = tmp_path / "worker"

    def work() -> int:
        worker = multiprocessing.get_context("fork").Process(target=sleep_ignoring_signals, daemon=True)
        worker.start()
        started.write_text(str(worker.pid))
        return 0

    assert supervise(1, work) == 0
    stat = Path(f"/proc/{started.read_text()}/stat")
    until = time.monotonic() + scaled(5)
    while is_alive(stat) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(stat)


def is_alive(stat: Path) -> bool:
    """Return whether a process is neither gone nor a zombie, as one that no process reaps."""
    return stat.exists() and stat.read_text().rsplit(")")[-1].split()[0] != "Z"


def sleep_ignoring_signals() -> None:
    signals.ignore_signals()
    time.sleep(600)


def test_a_signal_to_the_parent_stops_the_children(tmp_path: Path) -> None:
    def work() -> int:
        (tmp_path / os.environ["LOCAL_RANK"]).touch()
        while signals.requested() is None:
            time.sleep(0.02)
        return TRY_AGAIN if signals.requested() == signal.SIGTERM else 1

    def stop() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    signals.install()
    try:
        threading.Thread(target=stop).start()
        assert supervise(2, work) == TRY_AGAIN
    finally:
        signals.forget()


def test_the_exit_code_of_a_killed_process_is_that_of_a_shell() -> None:
    assert [exit_code.as_shell(code) for code in (0, 3, -signal.SIGKILL)] == [0, 3, 137]


FORKED = """
import os, torch
from pipeline.distributed.launch import one_thread
torch.set_num_threads(2)
with one_thread():
    assert torch.get_num_threads() == 1
    torch.cat([torch.ones(1 << 18)] * 2)
assert torch.get_num_threads() == 2
if os.fork() == 0:
    torch.ones(1 << 20).add(1).sum()
    os._exit(0)
assert os.wait()[1] == 0
"""


def test_what_is_computed_before_the_fork_has_one_thread() -> None:
    """Otherwise the first parallel operation of the forked process waits for threads that it does not have."""
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=scaled(30))
