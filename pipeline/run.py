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
import importlib
import inspect
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from pipeline import record
from pipeline.errors import CheckpointError, ConfigError

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
    """

    def __init__(self, path: Path) -> None:
        self.path = path

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


def choose_checkpoint(run: Path, which: str) -> Path:
    """The checkpoint that `which` names, verified.

    Args:
        run: the run's directory.
        which: `best` (by the run's `checkpoints.metric`, the last where none was validated), `last`, or a path.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    from pipeline.distributed.checkpoint import directory as checkpoint

    if which not in ("best", "last"):
        checkpoint.verify(Path(which))
        return Path(which)
    best = []
    if which == "best":
        best = checkpoint.by_metric(run / "checkpoints", record.read_config(run)["checkpoints"]["metric"])
    if best:
        checkpoint.verify(best[0][1])
        return best[0][1]
    found = checkpoint.latest(run / "checkpoints", lambda line: print(line, file=sys.stderr))
    if found is None:
        raise CheckpointError(f"run {run.name} has no checkpoint yet")
    return found[0]


def load_model(run: Path, checkpoint: str = "best") -> Any:
    """The task of a run with the weights of one of its checkpoints, in evaluation mode, on the CPU.

    Args:
        run: the run's directory.
        checkpoint: `best`, `last` or a path, as `choose_checkpoint` takes it.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or weights of another model.
    """
    from pipeline.distributed.checkpoint.averaged import prefer_average
    from pipeline.distributed.checkpoint.directory import read_state

    chosen = choose_checkpoint(run, checkpoint)
    model = build_model(model_config(run))
    state = read_state(chosen)
    try:
        prefer_average(state, model, chosen.name)
        model.load_state_dict(state["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{chosen} does not fit the model of {run / 'config.yaml'}: {error}") from error
    return model.eval()


def model_config(run: Path) -> dict[str, Any]:
    """Class and arguments of a run's model, with those that its data decided, without files that it began with."""
    config: dict[str, Any] = _without_weights(record.read_config(run)["model"])
    return tell(config, record.read_record(run)["linked"])


def tell(config: dict[str, Any], linked: Mapping[str, Any]) -> dict[str, Any]:
    """Class and arguments of a model, with what its data decided where the class takes it."""
    module, _, name = config["class_path"].rpartition(".")
    bases = getattr(importlib.import_module(module), name).__mro__
    takes = {parameter for base in bases for parameter in inspect.signature(base.__init__).parameters}
    told = {name: value for name, value in linked.items() if name in takes}
    return {**config, "init_args": {**(config.get("init_args") or {}), **told}}


def _without_weights(config: Any) -> Any:
    """The config of a model that is trained: its weights are in its checkpoints."""
    if isinstance(config, list):
        return [_without_weights(part) for part in config]
    if not isinstance(config, dict):
        return config
    return {name: None if name == "weights" else _without_weights(part) for name, part in config.items()}


def build_model(config: dict[str, Any]) -> Any:
    """The task that a config names, with new weights."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    from pipeline import options

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    with options.of_their_class():
        parsed = parser.parse_object({"model": config})
    return parser.instantiate_classes(parsed).model
