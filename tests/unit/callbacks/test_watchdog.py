"""What a process concludes from the messages of the others, with a clock controlled by the test."""

import pytest

from pipeline.callbacks.watchdog import GRACE, Pulse
from pipeline.errors import HangError, LostPeerError


@pytest.fixture
def pulse() -> Pulse:
    """Three processes, seen at second 100, all making progress."""
    pulse = Pulse(10.0, range(3), 99.0)
    pulse.update({0: "1 0.0", 1: "1 0.0", 2: "1 0.0"}, 100.0)
    return pulse


def test_there_is_no_failure_while_all_respond_and_one_makes_progress(pulse: Pulse) -> None:
    for second in range(1, 100):
        pulse.update(
            {0: f"{second + 1} {second}.0", 1: f"{second + 1} {second}.0", 2: f"{second + 1} 0.3"}, 100.0 + second
        )
        assert pulse.failure(0, float(second), 100.0 + second) is None


def test_a_process_that_stops_responding_is_lost_after_the_patience(pulse: Pulse) -> None:
    for second in range(1, 12):
        pulse.update({0: f"{second + 1} 0.0", 1: f"{second + 1} 0.0", 2: "1 0.0"}, 100.0 + second)
    assert pulse.failure(0, 0.0, 110.0) is None
    found = pulse.failure(0, 0.0, 111.0)
    assert isinstance(found, LostPeerError)
    assert "process 2" in str(found)


def test_a_process_that_never_sent_a_message_is_lost_and_not_hanging() -> None:
    pulse = Pulse(10.0, range(2), 100.0)
    pulse.update({0: "11 10.5"}, 110.5)
    assert isinstance(pulse.failure(0, 10.5, 110.5), LostPeerError)
    pulse = Pulse(10.0, range(2), 101.0)  # its patience has not passed yet
    assert pulse.failure(0, 10.5, 110.5) is None


def test_no_progress_in_any_process_is_a_hang(pulse: Pulse) -> None:
    pulse.update({0: "2 10.5", 1: "2 10.4", 2: "2 9.0"}, 101.0)
    assert pulse.failure(0, 10.5, 101.0) is None
    pulse.update({0: "3 11.5", 1: "3 11.4", 2: "3 10.1"}, 102.0)
    assert isinstance(pulse.failure(0, 11.5, 102.0), HangError)


def test_a_process_that_waits_for_one_that_left_stops_after_a_grace_period(pulse: Pulse) -> None:
    pulse.update({1: "left after MemoryError"}, 101.0)
    assert pulse.failure(0, GRACE - 0.1, 106.0) is None
    assert "left after MemoryError" in str(pulse.failure(0, GRACE + 0.1, 106.0))


def test_a_process_that_is_done_is_lost_only_to_those_that_still_wait(pulse: Pulse) -> None:
    pulse.update({1: "done", 2: "done"}, 101.0)
    assert pulse.failure(0, 9.0, 150.0) is None
    assert isinstance(pulse.failure(0, 10.1, 150.0), LostPeerError)


def test_after_a_suspension_no_process_counts_as_lost(pulse: Pulse) -> None:
    assert pulse.failure(0, 0.0, 500.0) is not None
    pulse.restart(500.0)
    assert pulse.failure(0, 0.0, 500.0) is None
