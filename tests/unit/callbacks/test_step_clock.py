"""Each instant of training belongs to one part of a step, so the parts sum to the step."""

import time
from types import SimpleNamespace

import pytest
import torch

from pipeline.callbacks.step_clock import StepClock


class Times:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    found = Times()
    monkeypatch.setattr(time, "perf_counter", found)
    return found


def step(clock: StepClock, times: Times, slots: int = 1) -> None:
    """Two seconds of data, 3 forward, 5 backward per micro-batch; 7 of the optimizer, 11 of agreement, 13 of others."""
    for _ in range(slots):
        clock.wait()
        times.now += 2
        clock.mark("forward")
        times.now += 3
        clock.mark("backward")
        times.now += 5
    clock.mark("optimizer")
    times.now += 4
    with clock.during("agreement"):
        times.now += 11
    times.now += 3
    clock.mark("other")
    times.now += 13


@pytest.mark.numeric
def test_the_parts_of_a_step_sum_to_it(times: Times) -> None:
    clock = StepClock()
    clock.start(torch.device("cpu"))
    clock.mark("other")
    for _ in range(3):
        step(clock, times, slots=2)
    clock.close(3)
    found = clock.row()
    expected = {"data": 4, "forward": 6, "backward": 10, "optimizer": 7, "agreement": 11, "other": 13, "step": 51}
    assert found == {f"time/{part}": pytest.approx(seconds) for part, seconds in expected.items()}
    assert clock.row() == {}


def test_a_validation_and_the_wait_after_it_do_not_count(times: Times) -> None:
    clock = StepClock()
    clock.start(torch.device("cpu"))
    clock.mark("forward")
    times.now += 1
    clock.mark(None)
    with clock.during("agreement"):
        times.now += 50
    clock.wait()
    times.now += 50
    clock.mark("forward")
    times.now += 2
    clock.close(1)
    times.now += 4  # of the next interval
    assert clock.row()["time/step"] == 3
    clock.close(1)
    assert clock.row()["time/forward"] == 4


def test_nothing_is_kept_before_the_start_or_on_other_processes(times: Times) -> None:
    clock = StepClock()
    step(clock, times)
    clock.close(1)
    assert clock.marks == []
    assert clock.row() == {}


@pytest.mark.numeric
def test_the_events_of_a_gpu_are_read_when_they_have_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Event] = []

    class Event:
        """An event at 10 ms per event, which happens once a test sets `happened`."""

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.number, self.happened = len(made), False
            made.append(self)

        def record(self, stream: object) -> None:
            assert stream == "stream"

        def query(self) -> bool:
            return self.happened

        def elapsed_time(self, later: "Event") -> float:
            assert later.happened
            return 10.0 * (later.number - self.number)

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(Event=Event, current_stream=lambda device: "stream"))
    clock = StepClock()
    clock.start(torch.device("cuda"))
    for part in ("forward", "backward", "optimizer"):
        clock.mark(part)
    clock.close(1)
    assert clock.row() == {}  # the device has not finished: the host does not wait
    for event in made:
        event.happened = True
    clock.close(1)
    found = clock.row()
    assert found["time/forward"] == found["time/backward"] == found["time/optimizer"] == pytest.approx(0.01)
    assert found["time/step"] == pytest.approx(0.03)
    assert clock.row() == {}  # the second interval ends with an event that has not happened
