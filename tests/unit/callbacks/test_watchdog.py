"""What a process concludes from what it hears of the others, on a clock of the test's own."""

import pytest

from pipeline.callbacks.watchdog import GRACE, Pulse
from pipeline.errors import HangError, LostPeerError


@pytest.fixture
def pulse() -> Pulse:
    """Of three processes, heard at second 100, all moving."""
    pulse = Pulse(10.0, range(3), 99.0)
    pulse.hear({0: "1 0.0", 1: "1 0.0", 2: "1 0.0"}, 100.0)
    return pulse


def test_nothing_is_wrong_while_all_are_heard_and_one_moves(pulse: Pulse) -> None:
    for second in range(1, 100):
        pulse.hear(
            {0: f"{second + 1} {second}.0", 1: f"{second + 1} {second}.0", 2: f"{second + 1} 0.3"}, 100.0 + second
        )
        assert pulse.trouble(0, float(second), 100.0 + second) is None


def test_a_process_that_is_no_longer_heard_is_lost_after_the_patience(pulse: Pulse) -> None:
    for second in range(1, 12):
        pulse.hear({0: f"{second + 1} 0.0", 1: f"{second + 1} 0.0", 2: "1 0.0"}, 100.0 + second)
    assert pulse.trouble(0, 0.0, 110.0) is None
    found = pulse.trouble(0, 0.0, 111.0)
    assert isinstance(found, LostPeerError)
    assert "process 2" in str(found)


def test_a_process_that_never_said_a_word_is_lost_and_no_hang() -> None:
    pulse = Pulse(10.0, range(2), 100.0)
    pulse.hear({0: "11 10.5"}, 110.5)
    assert isinstance(pulse.trouble(0, 10.5, 110.5), LostPeerError)
    pulse = Pulse(10.0, range(2), 101.0)  # still until it has had its time
    assert pulse.trouble(0, 10.5, 110.5) is None


def test_all_standing_still_is_a_hang(pulse: Pulse) -> None:
    pulse.hear({0: "2 10.5", 1: "2 10.4", 2: "2 9.0"}, 101.0)
    assert pulse.trouble(0, 10.5, 101.0) is None
    pulse.hear({0: "3 11.5", 1: "3 11.4", 2: "3 10.1"}, 102.0)
    assert isinstance(pulse.trouble(0, 11.5, 102.0), HangError)


def test_who_waits_for_a_process_that_left_stops_after_a_grace(pulse: Pulse) -> None:
    pulse.hear({1: "left after MemoryError"}, 101.0)
    assert pulse.trouble(0, GRACE - 0.1, 106.0) is None
    assert "left after MemoryError" in str(pulse.trouble(0, GRACE + 0.1, 106.0))


def test_a_process_that_is_done_is_missed_only_by_who_still_waits(pulse: Pulse) -> None:
    pulse.hear({1: "done", 2: "done"}, 101.0)
    assert pulse.trouble(0, 9.0, 150.0) is None
    assert isinstance(pulse.trouble(0, 10.1, 150.0), LostPeerError)


def test_a_process_that_was_suspended_blames_nobody(pulse: Pulse) -> None:
    assert pulse.trouble(0, 0.0, 500.0) is not None
    pulse.forgive(500.0)
    assert pulse.trouble(0, 0.0, 500.0) is None
