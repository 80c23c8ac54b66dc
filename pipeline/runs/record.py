"""What a run says of itself, run.json and config.yaml, is read from a checkpoint where the file is gone or damaged.

Every checkpoint holds a copy of both, so a run is as safe as its checkpoints are.
"""

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.files import write_durably
from pipeline.runs.moved import update_config

RECORD, CONFIG = "run.json", "config.yaml"
FORMAT = 1  # of run.json
SERIES = "series.json"  # what an exported forecaster keeps of the record: how its tables are laid out and scaled
PARTS: dict[str, set[str]] = {RECORD: set(), CONFIG: {"trainer", "model", "data"}}  # what must be in them


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run: it has a record, or checkpoints."""
    return (path / RECORD).is_file() or any(path.glob(f"checkpoints/step-*/{RECORD}"))


def read_record(run: Path) -> dict[str, Any]:
    """The record of a run.

    Raises:
        CheckpointError: it is gone or damaged, and so is every copy; or a later version of unroll wrote it.
    """
    check_format(run)
    return _read(run, RECORD, json.loads)


def check_format(run: Path) -> None:
    """Raise CheckpointError if a later version of unroll wrote the record of a run; a damaged one passes."""
    with suppress(OSError, ValueError):
        if (number := _parsed(run / RECORD, json.loads).get("format", FORMAT)) > FORMAT:
            raise CheckpointError(f"{run / RECORD}: format={number}, expected at most {FORMAT}: update unroll")


def read_config(run: Path) -> dict[str, Any]:
    """The resolved config of a run, with the class paths of today.

    Raises:
        CheckpointError: it is gone or damaged, and so is every copy.
    """
    import yaml

    return dict(update_config(_read(run, CONFIG, yaml.safe_load)))


def write_text(run: Path, name: str, text: str) -> None:
    """Write a file of the run, whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_durably(run / name, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{run / name} cannot be written: {error}. Make room, or mend the permissions") from error


def copy_into(run: Path, checkpoint: Path) -> None:
    """Put copies of both into a checkpoint that is being written."""
    for name in (RECORD, CONFIG):
        if (run / name).is_file():
            shutil.copyfile(run / name, checkpoint / name)


def _read(run: Path, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        return _parsed(run / name, parse)
    except (OSError, ValueError) as error:
        found = _copy(run, name, parse)
        if found is None:
            raise CheckpointError(
                f"{run / name} cannot be read ({error}), and no checkpoint has a copy of it: restore it, or give "
                "--resume never, which keeps this run aside and starts anew"
            ) from error
    return found


def _copy(run: Path, name: str, parse: Callable[[str], Any]) -> dict[str, Any] | None:
    """The copy in the newest checkpoint that verifies."""
    from pipeline.distributed.checkpoint import directory as checkpoint

    for directory in checkpoint.newest_first(run / "checkpoints"):
        try:
            checkpoint.verify_checkpoint(directory)
            found = _parsed(directory / name, parse)
        except (CheckpointError, OSError, ValueError):
            continue
        print(f"{run / name} is gone or damaged: its copy in {directory.name} is used", file=sys.stderr, flush=True)
        return found
    return None


def _parsed(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What a file says.

    Raises:
        ValueError: it is not what it should be.
    """
    import yaml

    try:
        found = parse(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    if not isinstance(found, dict) or not found.keys() >= PARTS[file.name]:
        raise ValueError("it is not whole")
    return found
