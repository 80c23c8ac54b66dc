"""The clock of a peer's driver: when each step ended, what it lost, and the report that bench_peers.py reads."""

import json
import time
from pathlib import Path


class Clock:
    """Collects the steps of a training.

    Args:
        work: the description of the work, with `warm` and `output`.
    """

    def __init__(self, work: dict) -> None:
        self.work = work
        self.ends: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def step(self, loss: float | None = None) -> None:
        """A step has ended."""
        self.ends.append((time.perf_counter(), time.process_time()))
        if loss is not None:
            self.losses.append(float(loss))

    def write(self, parameters: int) -> None:
        """Write seconds per step after the first `warm` steps, and the mean loss of the last `every` steps."""
        first, last = self.ends[self.work["warm"] - 1], self.ends[self.work["steps"] - 1]
        steps = self.work["steps"] - self.work["warm"]
        losses = self.losses[: self.work["steps"]][-self.work["every"] :]
        wall, processor = ((after - before) / steps for before, after in zip(first, last, strict=True))
        found = {"wall": wall, "processor": processor, "loss": sum(losses) / len(losses), "parameters": parameters}
        Path(self.work["output"]).write_text(json.dumps(found))
