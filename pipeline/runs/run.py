"""A run is a directory with everything needed to continue, inspect or repeat a training.

runs/NAME/config.yaml     the resolved config
          run.json        ids, dataset, parameters, attempts with host, processes, code, changes and end reason
          patches/        uncommitted changes of the code of each attempt, by hash
          sweep.json      the values that a sweep chose, if any
          tokenizer.json  a copy of the dataset's
          checkpoints/    step-00001200/ ...
          journal.jsonl   the append-only record
"""

import datetime
import fcntl
import json
import os
import resource
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs import record
from pipeline.runs.code import NO_CODE, Code
from pipeline.runs.record import Attempt

RUNS = Path("runs")
SWEEP = "sweep.json"


def directory_of(name: str) -> Path:
    """Return the directory of a run: runs/NAME for a name, or the directory itself for a path, such as ../other/NAME.

    Raises:
        ConfigError: the name is empty, `.`, `..`, begins with a dash or holds control characters, or the path is the
            directory of all runs or one above it.
    """
    bare = name.rstrip(os.sep)
    path = Path(bare) if os.sep in bare else RUNS / bare
    last = os.path.basename(bare)
    if last in ("", ".", "..") or last.startswith("-") or not name.isprintable():
        raise ConfigError(f"--run={name!r}: expected a name, or the path of a run's directory. Choose another name")
    if os.sep in bare and path.resolve() in (RUNS.resolve(), *RUNS.resolve().parents):
        raise ConfigError(f"--run={name}: expected a run, got the directory of all runs or one above it. Add a name")
    return path


def name_of(run: Path) -> str:
    """Return the value of `--run` for a directory."""
    return run.name if run.parent == RUNS else str(run)


def find_run(name_or_path: str) -> Path:
    """Return the directory of an existing run.

    Raises:
        CheckpointError: the run does not exist (the message lists existing ones), or a later version wrote it.
    """
    if record.is_run(path := directory_of(name_or_path)):
        record.check_format(path)
        return path
    existing = sorted(path.name for path in RUNS.glob("*") if record.is_run(path))
    raise CheckpointError(f"no run {name_or_path!r}; runs here: {', '.join(existing) or 'none'}")


class Run:
    """The directory of a run and its record.

    Args:
        path: the run's directory; created if it does not exist.
        known: its record, if another process has read it; None reads it on first use.
    """

    def __init__(self, path: Path, known: dict[str, Any] | None = None) -> None:
        self.path = path
        if known is not None:
            self.record = known

    @cached_property
    def record(self) -> dict[str, Any]:
        """The contents of run.json; empty if the run does not exist.

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
        """The run's sweep, the id that it assigned and the values that it chose; empty without a sweep."""
        file = self.path / SWEEP
        return dict(json.loads(file.read_text())) if file.exists() else {}

    @property
    def attempt(self) -> Attempt:
        """The current attempt, or the last one."""
        attempt: Attempt = self.record["attempts"][-1]
        return attempt

    def create(self, **about: object) -> None:
        """Create the record of a new run."""
        self.record = {
            "format": record.FORMAT,
            "name": self.name,
            "path": str(self.path.resolve()),
            "id": (own := secrets.token_hex(4)),
            "wandb_id": self.sweep.get("run_id") or own,
            "created": now(),
            "git_commit": Code.running().commit,
            "attempts": [],
            **about,
        }
        self.write()

    def write(self, **changes: object) -> None:
        """Update the record and write it to disk.

        Raises:
            CheckpointError: it cannot be written.
        """
        self.record |= changes
        record.write_text(self.path, record.RECORD, json.dumps(self.record, indent=1))

    def begin_attempt(
        self,
        world_size: int,
        start_step: int,
        code: Code = NO_CODE,
        changes: Mapping[str, list[object]] = MappingProxyType({}),
    ) -> None:
        """Record a new attempt.

        Args:
            world_size: number of processes.
            start_step: optimizer steps before the attempt.
            code: version of the running code.
            changes: previous and new values of the settings that changed since the previous attempt.
        """
        attempt: Attempt = {
            "number": len(self.record["attempts"]) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "world_size": world_size,
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "started": now(),
            "start_step": start_step,
            "git_commit": code.commit,
            "diff": code.diff,
            "changes": dict(changes),
            "ended": None,
            "reason": None,
            "exit_code": None,
            "processor_seconds": None,
        }
        self.write(attempts=[*self.record["attempts"], attempt])

    def end_attempt(self, reason: str, exit_code: int) -> bool:
        """Record the end of the current attempt; if the record cannot be written, print a line and return False.

        The record is read again first, because the training process has written to it since.
        """
        with suppress(CheckpointError):  # the record in memory is then written instead
            self.record = record.read_record(self.path)
        try:
            attempt = self.attempt
            attempt["ended"], attempt["reason"], attempt["exit_code"] = now(), reason, exit_code
            attempt["processor_seconds"] = processor_seconds()
            self.write()
        except CheckpointError as error:
            print(f"unroll: error: the end of the attempt could not be recorded: {error}", file=sys.stderr)
            return False
        return True

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
        """Lock the run, so that no two processes train it at the same time.

        Args:
            patience: seconds to wait for another process to release the lock.

        Raises:
            ConfigError: another process has locked the run.
            CheckpointError: the directory of the run is not writable.
        """
        until = time.monotonic() + patience
        file = self.path.with_name(f".{self.name}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = file.open("a")
        except OSError as error:
            raise CheckpointError(f"{self.path.parent} cannot be written: {error}. Fix the permissions.") from error
        with opened as lock:
            while not locked(lock):
                if time.monotonic() >= until:
                    raise ConfigError(
                        f"run {self.name} is being trained by another process. Wait, or choose another --run."
                    )
                time.sleep(0.5)
            yield


def locked(file: TextIO) -> bool:
    """Lock an open file until it is closed; return False if another process has locked it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader workers would inherit it
    except OSError:
        return False
    return True


def now() -> str:
    """Return the current time in UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def processor_seconds() -> float:
    """Return the processor time of this process and of the processes that it started and that ended, in seconds."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
