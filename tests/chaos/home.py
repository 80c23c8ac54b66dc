"""The surroundings of runs: dataset, config, a small disk and a tracking server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.runs.journal import read_journal
from tests.chaos.injuries import SmallDisk
from tests.chaos.processes import Attempt, Command
from tests.chaos.tracker import Tracker
from tests.timeouts import scaled

ROOT = Path(__file__).parents[2]
METRICS = ("train/loss", "val/loss")

CONFIG = """
model:
  class_path: pipeline.models.lstm.LSTMLanguageModel
  init_args: {{width: 16, dropout: 0.2, optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.01}}}}}}
data:
  class_path: pipeline.data.text.TextDataModule
  init_args: {{dataset: {dataset}, order: contiguous, context: 16, global_batch_size: 16, workers: 1}}
trainer:
  {{accelerator: cpu, devices: 1, max_steps: {steps}, log_every_n_steps: 2, val_check_interval: 10,
    check_val_every_n_epoch: null, callbacks: [{{class_path: tests.chaos.pace.Pace}}]}}
checkpoints: {{every_steps: 4}}
watchdog: {{patience: {patience}}}
tracking: {{project: chaos, code: false}}
"""


class Home:
    """A directory with a dataset, a config and runs on a small disk, beside a tracking server.

    Args:
        path: the directory.
        arguments: the command line that starts a run, without its name.
        processes: number of training processes.
        steps: length of a run.
        preloaded: called in forks in place of real commands.
        small_disk: whether to mount a disk for the runs that can be filled.
    """

    def __init__(
        self,
        path: Path,
        arguments: list[str],
        processes: int,
        steps: int,
        preloaded: Command | None = None,
        small_disk: bool = True,
    ) -> None:
        self.path, self.processes, self.preloaded = path, processes, preloaded
        self.arguments = ["fit", "--config", "small.yaml", *arguments]
        self.disk, self.tracker = SmallDisk(path / "runs", small_disk), Tracker()
        self.moments = path / "moment"
        prepare(path)
        (path / "small.yaml").write_text(CONFIG.format(dataset=path / "data", steps=steps, patience=scaled(10)))
        (path / "home").mkdir(exist_ok=True)
        own = {"HOME": str(path / "home"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
        self.environment = {**os.environ, **own, "CHAOS_MOMENT": str(self.moments), **self.tracker.environment()}
        self.started = 10.0  # seconds until the first step
        self.expected: dict[str, dict[int, float]] = {}

    def start(self, name: str) -> Attempt:
        """Start the command of a run."""
        self.moments.write_text("start 0")
        arguments = [*self.arguments, "--run", name]
        return Attempt(arguments, self.path, self.environment, self.path / f"{name}.log", self.preloaded)

    def moment(self, name: str) -> tuple[str, int]:
        """Return the moment of the running attempt, one of MOMENTS, and its step."""
        where, _, step = self.moments.read_text().partition(" ")
        saving = where != "start" and any((self.path / "runs" / name / "checkpoints").glob(".step-*.partial"))
        return ("saving" if saving and where != "end" else where) or "start", int(step or 0)

    def straight(self) -> None:
        """Train the undisturbed run."""
        attempt = self.start("straight")
        try:
            self.watch("straight", attempt.poll)
        except BaseException:
            attempt.kill()
            raise

    def watch(self, name: str, poll: Callable[[], int | None]) -> None:
        """Wait for the undisturbed run until `poll` returns an exit code; keep its rows and the time of its start."""
        began, first, limit = time.monotonic(), 0.0, scaled(120)
        while (code := poll()) is None and time.monotonic() < began + limit:
            if not first and self.moment(name)[0] != "start":
                first = time.monotonic() - began
            time.sleep(0.02)
        stacks = sorted((self.path / "runs" / name / "stacks").glob("*"))
        assert code == 0, "\n".join(file.read_text() for file in (self.path / f"{name}.log", *stacks))
        self.started = first
        series = ((metric, read_journal(self.path / "runs" / name).series(metric)) for metric in METRICS)
        self.expected = {metric: dict(zip(found.steps, found.values, strict=True)) for metric, found in series}

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a run."""
        try:
            return dict(json.loads((self.path / "runs" / name / "run.json").read_text()))
        except (OSError, ValueError):
            return {"attempts": [], "wandb_id": ""}


def prepare(path: Path) -> None:
    """Prepare a small text dataset."""
    lines = [f"{i} bottles of milk on wall {i % 7}, take {i % 3} down and pass them round" for i in range(60)]
    for name, part in (("train", lines[:48]), ("validation", lines[48:])):
        (path / f"{name}.txt").write_text("\n".join(part))
    files = ["--train", "train.txt", "--validation", "validation.txt", "--documents", "line", "--workers", "1"]
    command = [sys.executable, "-m", "pipeline", "prepare", "text", *files, "--tokenizer", "character"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*command, "--output", "data"], cwd=path, env=environment, check=True, capture_output=True)
