"""The time of a step by its parts, without a wait of the host for the device.

On the CPU a mark is the time on the clock of the host, on a GPU an event in the stream of the training. Each instant
between two marks belongs to one part, so the parts sum to the whole.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Protocol, runtime_checkable

import torch

PARTS = ("data", "forward", "backward", "optimizer", "agreement", "other")


@runtime_checkable
class Event(Protocol):
    """What is used of `torch.cuda.Event`."""

    def record(self, stream: object) -> object:
        """Let it happen when the stream reaches it."""

    def query(self) -> bool:
        """Return whether it has happened."""

    def elapsed_time(self, later: "Event") -> float:
        """Return the milliseconds from this event to a later one."""


Moment = float | Event
Mark = tuple[str | None, Moment]  # the part that begins, and its time; None does not count


class StepClock:
    """Measures the parts of the steps between two rows of the journal."""

    def __init__(self) -> None:
        self.part: str | None = None
        self.marks: list[Mark] = []
        self.closed: deque[tuple[Sequence[Mark], int]] = deque()
        self.device: torch.device | None = None  # None before the first step, or if nothing is measured

    def start(self, device: torch.device | None) -> None:
        """Start to measure the training on a device, or stop."""
        self.device, self.part, self.marks = device, None, []
        self.closed.clear()

    def mark(self, part: str | None) -> None:
        """End the current part and begin another one; None for what is not training."""
        if self.device is not None:
            self.part = part
            self.marks.append((part, self._now()))

    def wait(self) -> None:
        """Begin the part `data`, unless what follows is not training."""
        if self.part is not None:
            self.mark("data")

    def during(self, part: str) -> "During":
        """Return a context that belongs to another part than what surrounds it."""
        return During(self, part)

    def close(self, steps: int) -> None:
        """End an interval of some optimizer steps."""
        if self.device is None:
            return
        self.mark(self.part)
        self.closed.append((self.marks, steps))
        self.marks = self.marks[-1:]

    def row(self) -> dict[str, float]:
        """Return the seconds per step of each part in the oldest interval that the device has finished, if any."""
        if not self.closed or not self._is_past(self.closed[0][0]):
            return {}
        marks, steps = self.closed.popleft()
        seconds = dict.fromkeys(PARTS, 0.0)
        for (part, began), (_, ended) in pairwise(marks):
            if part is not None:
                seconds[part] += _between(began, ended)
        found = {f"time/{part}": value / steps for part, value in seconds.items()}
        return found | {"time/step": sum(found.values())}

    def _now(self) -> Moment:
        if self.device is None or self.device.type != "cuda":
            return time.perf_counter()
        create: Callable[..., Event] = vars(torch.cuda)["Event"]
        event = create(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _is_past(self, marks: Sequence[Mark]) -> bool:
        last = marks[-1][1]
        return isinstance(last, float) or last.query()


class During:
    """A context that belongs to a part of the step."""

    def __init__(self, clock: StepClock, part: str) -> None:
        self.clock, self.part = clock, part
        self.before: list[str | None] = []

    def __enter__(self) -> None:
        self.before.append(self.clock.part)
        if self.clock.part is not None:
            self.clock.mark(self.part)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if (before := self.before.pop()) is not None:
            self.clock.mark(before)


def _between(began: Moment, ended: Moment) -> float:
    """Return the seconds between two marks."""
    if isinstance(began, float) or isinstance(ended, float):
        assert isinstance(began, float)
        assert isinstance(ended, float)
        return ended - began
    return began.elapsed_time(ended) / 1e3
