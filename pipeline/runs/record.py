"""Read and write run.json and config.yaml of a run, with a fallback to the copies in its checkpoints.

Every checkpoint contains a copy of both files, which is read when the original is missing or damaged.
"""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from pipeline.errors import CheckpointError
from pipeline.files import write_durably
from pipeline.runs.moved import update_config

RECORD, CONFIG = "run.json", "config.yaml"
FORMAT = 1  # of run.json
SERIES = "series.json"  # the part of the record in an exported forecaster: layout and scale of its tables
PARTS: dict[str, set[str]] = {RECORD: set(), CONFIG: {"trainer", "model", "data"}}  # required keys


class Attempt(TypedDict):
    """One start of a run, as the record stores it."""

    number: int
    host: str
    pid: int
    world_size: int
    slurm_job: str | None
    started: str
    start_step: int
    git_commit: str | None
    diff: str | None
    """Hash of the changes since the commit, see `Code`."""
    changes: dict[str, list[object]]
    """Settings that differ from those of the previous attempt: its value, then the new one."""
    ended: str | None
    reason: str | None
    exit_code: int | None
    processor_seconds: float | None
    """Processor time, user and system, of the first process and those that it started; None if it was killed."""


def is_run(path: Path) -> bool:
    """Return whether a directory is a run: it has a record, or checkpoints with one."""
    return (path / RECORD).is_file() or any(path.glob(f"checkpoints/step-*/{RECORD}"))


def read_record(run: Path) -> dict[str, Any]:
    """Read the record of a run.

    Raises:
        CheckpointError: it and all copies are missing or damaged, or a later version of unroll wrote it.
    """
    check_format(run)
    return _read(run, RECORD, json.loads)


def read_series_record(run: Path) -> dict[str, Any]:
    """Read the record of a run, or the part of it that an exported model contains.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (file := run / SERIES).is_file():
        return read_record(run)
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def check_format(run: Path) -> None:
    """Raise CheckpointError if a later version of unroll wrote the record of a run; ignore a damaged record."""
    with suppress(OSError, ValueError):
        if (number := _parsed(run / RECORD, json.loads).get("format", FORMAT)) > FORMAT:
            raise CheckpointError(f"{run / RECORD}: format={number}: expected at most {FORMAT}. Update unroll.")


def read_config(run: Path) -> dict[str, Any]:
    """Read the resolved config of a run, with current class paths.

    Raises:
        CheckpointError: it and all copies are missing or damaged.
    """
    import yaml

    return dict(update_config(_read(run, CONFIG, yaml.safe_load)))


def write_text(run: Path, name: str, text: str) -> None:
    """Write a file of the run atomically.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_durably(run / name, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{run / name} cannot be written: {error}. Free disk space, or fix the permissions."
        ) from error


def copy_into(run: Path, checkpoint: Path) -> None:
    """Copy both files into a checkpoint that is being written."""
    for name in (RECORD, CONFIG):
        if (run / name).is_file():
            shutil.copyfile(run / name, checkpoint / name)


def _read(run: Path, name: str, parse: Callable[[str], object]) -> dict[str, Any]:
    try:
        return _parsed(run / name, parse)
    except (OSError, ValueError) as error:
        found = _copy(run, name, parse)
        if found is None:
            raise CheckpointError(
                f"{run / name} cannot be read ({error}), and no checkpoint has a copy of it. Restore it, or use "
                "--resume never, which renames this run and starts a new one."
            ) from error
    return found


def _copy(run: Path, name: str, parse: Callable[[str], object]) -> dict[str, Any] | None:
    """Read the copy in the newest valid checkpoint."""
    from pipeline.distributed.checkpoint import directory as checkpoint

    for directory in checkpoint.newest_first(run / "checkpoints"):
        try:
            checkpoint.verify_checkpoint(directory)
            found = _parsed(directory / name, parse)
        except (CheckpointError, OSError, ValueError):
            continue
        print(f"{run / name} is missing or damaged: using its copy in {directory.name}", file=sys.stderr, flush=True)
        return found
    return None


def _parsed(file: Path, parse: Callable[[str], object]) -> dict[str, Any]:
    """Parse a file.

    Raises:
        ValueError: it is malformed or lacks a required key.
    """
    import yaml

    try:
        found = parse(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    if not isinstance(found, dict) or not found.keys() >= PARTS[file.name]:
        raise ValueError("it is incomplete")
    return found
