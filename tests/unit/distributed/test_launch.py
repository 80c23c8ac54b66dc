"""The exit code of a run is that of the process that failed first, and not because another did."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from pipeline.distributed.launch import _supervise
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
def test_the_cause_decides(works: list[Callable[[], None]], code: int) -> None:
    children = {}
    for rank, work in enumerate(works):
        child = os.fork()
        if child == 0:
            work()
        children[child] = rank
    assert _supervise(children) == code


def test_who_waits_for_a_killed_process_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.distributed.launch.GRACE", 0.2)
    children = {}
    for rank, work in enumerate([die(), leave(0, 60.0)]):
        child = os.fork()
        if child == 0:
            work()
        children[child] = rank
    began = time.monotonic()
    assert _supervise(children) == 128 + signal.SIGKILL
    assert time.monotonic() - began < min(scaled(5.0), 50.0)  # and not when the other one leaves
