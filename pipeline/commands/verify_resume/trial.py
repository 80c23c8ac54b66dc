"""A trial trains one experiment several times, with and without interruptions, and compares the runs.

Every attempt is a process of its own, started by the user's command.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.callbacks import step_trace
from pipeline.callbacks.fault_injection import Interrupt
from pipeline.distributed import exit_code
from pipeline.distributed.checkpoint import diff as difference
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.errors import TRY_AGAIN, ConfigError

# Runs `unroll ARGUMENTS`, appends its output to a file and returns the exit code: 128 + n if signal n killed it.
Start = Callable[[list[str], Path], int]
STRAIGHT = "straight"
# Counters of Lightning that only progress bars read; they start from zero in each attempt.
SHOWN = ("loops/fit_loop/epoch_loop.val_loop.batch_progress/total", "loops/fit_loop/epoch_loop.state_dict/_batches")


def start_process(arguments: list[str], log: Path) -> int:
    """Run `unroll ARGUMENTS` in a new process, without W&B."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = os.environ | {"WANDB_MODE": "disabled"}
    with log.open("a") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
    return exit_code.as_shell(done.returncode)


class TrialOutcome(NamedTuple):
    """The result of an interrupted run."""

    resumed: list[int]
    """Steps at which it resumed."""
    difference: str | None
    """The first difference from the uninterrupted run, in words."""


@dataclass(frozen=True)
class Trial:
    """One experiment on one number of processes.

    Args:
        home: directory of its runs.
        arguments: arguments of `unroll fit`.
        start: starts an attempt.
    """

    home: Path
    arguments: list[str]
    start: Start = start_process

    def straight(self, name: str = STRAIGHT) -> Path:
        """Train without interruption.

        Raises:
            ConfigError: the run fails.
        """
        if (code := self.attempt(name)) != 0:
            printed = self._log(name).read_text().strip().splitlines()
            last = printed[-1] if printed else "no output"
            raise ConfigError(f"the uninterrupted run fails with exit code {code}: {last}")
        return self.home / name

    def stopped(self, name: str, stops: Sequence[Interrupt]) -> TrialOutcome:
        """Train with these interruptions, resume after each, and compare with the uninterrupted run."""
        wrong = self._relay(name, [self] * (len(stops) + 1), stops)
        return TrialOutcome(
            _resumed(self.home / name), wrong or first_difference(self.home / STRAIGHT, self.home / name)
        )

    def moved(self, name: str, trials: "Sequence[Trial]", stops: Sequence[Interrupt]) -> tuple[TrialOutcome, float]:
        """Train one run with the settings of several trials one after another; compare its samples and losses.

        Returns:
            The result, and the largest relative difference of the loss of a step.
        """
        if wrong := self._relay(name, trials, stops):
            return TrialOutcome(_resumed(self.home / name), wrong), 0.0
        rows = (step_trace.read_traces(self.home / each) for each in (STRAIGHT, name))
        found, apart = step_trace.compare_steps(*rows)
        return TrialOutcome(_resumed(self.home / name), found), apart

    def attempt(self, name: str, stop: Interrupt | None = None) -> int:
        """Start or resume a run; return its exit code."""
        callbacks: list[dict[str, object]] = [{"class_path": f"{step_trace.__name__}.{step_trace.Witness.__name__}"}]
        callbacks += [] if stop is None else [stop.config()]
        more = [f"--trainer.callbacks+={json.dumps(each)}" for each in callbacks]
        self.home.mkdir(parents=True, exist_ok=True)
        return self.start(["fit", *self.arguments, f"--run={self.home / name}", *more], self._log(name))

    def _relay(self, name: str, trials: "Sequence[Trial]", stops: Sequence[Interrupt]) -> str | None:
        """Train one run with the settings of one trial per attempt; return an unexpected exit code in words."""
        for trial, stop in zip(trials, [*stops, None], strict=True):
            code = Trial(self.home, trial.arguments, self.start).attempt(name, stop)
            expected = 0 if stop is None else TRY_AGAIN if stop.graceful else 128 + stop.number
            if code != expected:
                return f"exit code {code}, expected {expected}; see {self._log(name)}"
        return None

    def _log(self, name: str) -> Path:
        return self.home / f"{name}.log"


def _resumed(run: Path) -> list[int]:
    """Return the steps at which the attempts after the first one began."""
    record = run / "run.json"
    attempts = json.loads(record.read_text())["attempts"] if record.is_file() else []
    return [attempt["start_step"] for attempt in attempts[1:]]


def first_difference(one: Path, two: Path) -> str | None:
    """Return the first difference of two runs, in a step or in the last checkpoint; None if they are equal.

    The checkpoint has weights, optimizer, schedule, carried state, averages, counters and metrics.
    """
    if found := step_trace.first_divergence(step_trace.read_traces(one), step_trace.read_traces(two)):
        return found
    everything = difference.compare(end_of(one), end_of(two))
    rows = [row for row in everything if not row.equal and not row.name.startswith(SHOWN)]
    if not rows:
        return None
    apart = f" by {rows[0].absolute:.3g}" if rows[0].absolute else ""
    more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"last checkpoint, {rows[0].name}: {rows[0].what}{apart}{more}"


def end_of(run: Path) -> dict[str, object]:
    """Return the content of a run's last checkpoint, with the metrics of its manifest."""
    last = checkpoint.newest_first(run / "checkpoints")[0]
    metrics = checkpoint.verify_checkpoint(last)["metrics"]
    return {**checkpoint.read_state(last), "metrics": metrics}
