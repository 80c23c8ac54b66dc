"""A trial trains one experiment again and again, straight and stopped, and tells what difference that made.

Every attempt is a process of its own, started with the command that a user would give.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.callbacks import step_trace
from pipeline.callbacks.fault_injection import Interrupt
from pipeline.distributed import exit_code
from pipeline.distributed.checkpoint import diff as difference
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.errors import TRY_AGAIN, ConfigError

# starts `unroll ARGUMENTS`, adds what it says to a file, and returns the exit code: 128 + n if signal n killed it
Start = Callable[[list[str], Path], int]
STRAIGHT = "straight"
# counters of Lightning that nothing but a display reads: they begin anew with each attempt
SHOWN = ("loops/fit_loop/epoch_loop.val_loop.batch_progress/total", "loops/fit_loop/epoch_loop.state_dict/_batches")


def start_process(arguments: list[str], said: Path) -> int:
    """Run `unroll ARGUMENTS` in a new process, without W&B."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    environment = os.environ | {"WANDB_MODE": "disabled"}
    with said.open("a") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
    return exit_code.as_shell(done.returncode)


class TrialOutcome(NamedTuple):
    """What became of a run that was stopped."""

    resumed: list[int]
    """Steps at which it continued."""
    difference: str | None
    """The first thing that differs from the straight run, in words."""


@dataclass(frozen=True)
class Trial:
    """One experiment on one number of processes.

    Args:
        home: a directory for its runs.
        arguments: what `unroll fit` is given.
        start: how an attempt is started.
    """

    home: Path
    arguments: list[str]
    start: Start = start_process

    def straight(self, name: str = STRAIGHT) -> Path:
        """Train without a stop.

        Raises:
            ConfigError: the run does not come to its end.
        """
        if (code := self.attempt(name)) != 0:
            said = self._said(name).read_text().strip().splitlines()
            raise ConfigError(f"it ends with exit code {code}, even straight: {said[-1] if said else 'without a word'}")
        return self.home / name

    def stopped(self, name: str, stops: Sequence[Interrupt]) -> TrialOutcome:
        """Train with these stops, continued after each, and compare with the straight run."""
        wrong = self._relay(name, [self] * (len(stops) + 1), stops)
        return TrialOutcome(
            _resumed(self.home / name), wrong or first_difference(self.home / STRAIGHT, self.home / name)
        )

    def moved(self, name: str, trials: "Sequence[Trial]", stops: Sequence[Interrupt]) -> tuple[TrialOutcome, float]:
        """Train in turn as the trials do, stopped in between: the same samples as straight, and how similar losses.

        Returns:
            What became of it, and the largest relative difference of the loss of a step.
        """
        if wrong := self._relay(name, trials, stops):
            return TrialOutcome(_resumed(self.home / name), wrong), 0.0
        rows = (step_trace.read_traces(self.home / each) for each in (STRAIGHT, name))
        found, apart = step_trace.compare_steps(*rows)
        return TrialOutcome(_resumed(self.home / name), found), apart

    def attempt(self, name: str, stop: Interrupt | None = None) -> int:
        """Start or continue a run, until it ends or is stopped; returns the exit code."""
        callbacks: list[dict[str, object]] = [{"class_path": f"{step_trace.__name__}.{step_trace.Witness.__name__}"}]
        callbacks += [] if stop is None else [stop.config()]
        more = [f"--trainer.callbacks+={json.dumps(each)}" for each in callbacks]
        self.home.mkdir(parents=True, exist_ok=True)
        return self.start(["fit", *self.arguments, f"--run={self.home / name}", *more], self._said(name))

    def _relay(self, name: str, trials: "Sequence[Trial]", stops: Sequence[Interrupt]) -> str | None:
        """Attempts of one run, each as another trial does it; what went wrong, in words."""
        for trial, stop in zip(trials, [*stops, None], strict=True):
            code = Trial(self.home, trial.arguments, self.start).attempt(name, stop)
            wanted = 0 if stop is None else TRY_AGAIN if stop.graceful else 128 + stop.number
            if code != wanted:
                return f"exit code {code} where {wanted} was due, see {self._said(name)}"
        return None

    def _said(self, name: str) -> Path:
        return self.home / f"{name}.log"


def _resumed(run: Path) -> list[int]:
    """The steps at which the later attempts of a run began."""
    record = run / "run.json"
    attempts = json.loads(record.read_text())["attempts"] if record.is_file() else []
    return [attempt["start_step"] for attempt in attempts[1:]]


def first_difference(one: Path, two: Path) -> str | None:
    """The first thing that two runs do not have in common, step by step and in the end; None if there is none.

    In the end: weights, optimizer, schedule, carried state, averages, counters, and what was measured.
    """
    if found := step_trace.first_divergence(step_trace.read_traces(one), step_trace.read_traces(two)):
        return found
    everything = difference.compare(end_of(one), end_of(two))
    rows = [row for row in everything if not row.equal and not row.name.startswith(SHOWN)]
    if not rows:
        return None
    apart = f" by {rows[0].absolute:.3g}" if rows[0].absolute else ""
    more = f", and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"in the end, {rows[0].name}: {rows[0].what}{apart}{more}"


def end_of(run: Path) -> dict[str, Any]:
    """Everything that the last checkpoint of a run holds, with the metrics of its manifest."""
    last = checkpoint.newest_first(run / "checkpoints")[0]
    metrics = checkpoint.verify_checkpoint(last)["metrics"]
    return {**checkpoint.read_state(last), "metrics": metrics}
