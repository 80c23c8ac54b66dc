"""A run is a directory that holds everything needed to continue, inspect or repeat a training.

runs/NAME/config.yaml     the resolved config
          run.json        W&B id, dataset, parameters, attempts with host, world size, start and end reason
          sweep.json      what a sweep chose, where one did
          tokenizer.json  a copy of the dataset's
          checkpoints/    step-00001200/ ...
          journal.jsonl   the append-only record
"""

import datetime
import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs import record

RUNS = Path("runs")
SWEEP = "sweep.json"


def directory_of(name: str) -> Path:
    """Where the run NAME lies: under runs/, or NAME itself where it is a path."""
    return Path(name) if os.sep in name else RUNS / name


def find_run(name_or_path: str) -> Path:
    """The directory of an existing run.

    Raises:
        CheckpointError: there is none; the message names those that there are. Or a later version wrote it.
    """
    for path in (directory_of(name_or_path), Path(name_or_path)):
        if record.is_run(path):
            record.check_format(path)
            return path
    there = sorted(path.name for path in RUNS.glob("*") if record.is_run(path))
    raise CheckpointError(f"no run {name_or_path!r}; runs here: {', '.join(there) or 'none'}")


class Run:
    """The directory and its record.

    Args:
        path: the run's directory; made if it is not there.
        known: its record, where another process read it already; None reads it when it is needed.
    """

    def __init__(self, path: Path, known: dict[str, Any] | None = None) -> None:
        self.path = path
        if known is not None:
            self.record = known

    @cached_property
    def record(self) -> dict[str, Any]:
        """What is in run.json; empty where there is no run yet.

        Raises:
            CheckpointError: it is damaged, and no checkpoint has a copy of it.
        """
        return record.read_record(self.path) if record.is_run(self.path) else {}

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def sweep(self) -> dict[str, Any]:
        """The sweep that the run belongs to, the id it gave and the values it chose; empty where there is none."""
        file = self.path / SWEEP
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    @property
    def attempt(self) -> dict[str, Any]:
        """The attempt under way, or the last one."""
        attempt: dict[str, Any] = self.record["attempts"][-1]
        return attempt

    def create(self, **about: Any) -> None:
        """Begin the record of a new run."""
        self.record = {
            "format": record.FORMAT,
            "name": self.name,
            "wandb_id": self.sweep.get("run_id") or secrets.token_hex(4),
            "created": now(),
            "git_commit": git_commit(),
            "attempts": [],
            **about,
        }
        self.write()

    def write(self, **changes: Any) -> None:
        """Change the record and publish it.

        Raises:
            CheckpointError: it cannot be written.
        """
        self.record |= changes
        record.write_text(self.path, record.RECORD, json.dumps(self.record, indent=1))

    def begin_attempt(self, world_size: int, start_step: int) -> None:
        """Record one more start."""
        attempt = {
            "number": len(self.record["attempts"]) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "world_size": world_size,
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "started": now(),
            "start_step": start_step,
            "ended": None,
            "reason": None,
            "exit_code": None,
        }
        self.write(attempts=[*self.record["attempts"], attempt])

    def end_attempt(self, reason: str, exit_code: int) -> None:
        """Record how the attempt under way ended; the process that trained wrote to the record meanwhile.

        How it ended stays what it is where the record cannot be written.
        """
        with suppress(CheckpointError):  # else the one in memory is written again
            self.record = record.read_record(self.path)
        try:
            self.attempt.update(ended=now(), reason=reason, exit_code=exit_code)
            self.write()
        except CheckpointError as error:
            print(f"the end of the attempt is not recorded: {error}", file=sys.stderr)

    def put_aside(self) -> Path | None:
        """Rename an existing run so that a new one can take its name; nothing is deleted."""
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.name}~{number}")).exists():
            number += 1
        self.path.rename(aside)
        self.record = {}
        return aside

    @contextmanager
    def lock(self, patience: float = 0.0) -> Iterator[None]:
        """Hold the run: two processes that train it would spoil it.

        Args:
            patience: seconds to wait for another process to leave it.

        Raises:
            ConfigError: another process holds it.
            CheckpointError: nothing can be written where the run lies.
        """
        until = time.monotonic() + patience
        file = self.path.with_name(f".{self.name}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = file.open("a")
        except OSError as error:
            raise CheckpointError(f"{self.path.parent} cannot be written: {error}") from error
        with opened as held:
            while not locked(held):
                if time.monotonic() >= until:
                    raise ConfigError(f"run {self.name} is being trained by another process: wait, or give --run OTHER")
                time.sleep(0.5)
            yield


def locked(file: TextIO) -> bool:
    """Lock an open file for this process, until it is closed; False where another process holds it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader workers would inherit it
    except OSError:
        return False
    return True


def now() -> str:
    """The time, as ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def git_commit() -> str | None:
    """The commit of the code that runs, `-dirty` where files differ from it; None outside a checkout."""
    where = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", where, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
