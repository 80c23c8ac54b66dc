"""A checkpoint is a directory: written under another name, hashed, renamed; verified before it is read.

So a directory of that name is either whole or damaged later, and damage is found by its hash. Reading never
executes code from the file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning_utilities.core.rank_zero import rank_zero_warn

from pipeline.errors import CheckpointError

STATE, MANIFEST = "state.pt", "manifest.json"
Manifest = dict[str, Any]


def write(directory: Path, save: Callable[[Path], None], about: Manifest) -> None:
    """Publish what `save` writes into a directory, with its manifest, by one rename.

    Raises:
        OSError: it could not be written; nothing is left under the final name or the temporary one.
    """
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        save(partial)
        files = {path.name: _describe(path) for path in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps({**about, "files": files}, indent=1))
        for path in [*partial.iterdir(), partial]:
            _flush(path)
        if directory.exists():
            remove(directory)
        partial.rename(directory)
        _flush(directory.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def verify(directory: Path) -> Manifest:
    """The manifest of a checkpoint whose every file is what was written.

    Raises:
        CheckpointError: a file is missing, truncated or changed; the message names it.
    """
    try:
        manifest: Manifest = json.loads((directory / MANIFEST).read_text())
        files = manifest["files"]
        for name, written in files.items():
            if _describe(directory / name) != written:
                raise CheckpointError(f"{directory / name} is not what was written: truncated or changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory} is no whole checkpoint: {error}") from error
    return manifest


def newest_first(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run, the latest step first."""
    return sorted(checkpoints.glob("step-*"), key=step_of, reverse=True)


def step_of(directory: Path) -> int:
    """The optimizer step that a checkpoint's name tells."""
    return int(directory.name.removeprefix("step-"))


def name_of(step: int) -> str:
    """The name of the checkpoint of an optimizer step."""
    return f"step-{step:08d}"


def latest(checkpoints: Path, say: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """The newest checkpoint that verifies; tells of each that does not. None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints and none of them verifies.
    """
    candidates = newest_first(checkpoints)
    for directory in candidates:
        try:
            return directory, verify(directory)
        except CheckpointError as error:
            say(f"checkpoint passed over: {error}")
    if candidates:
        raise CheckpointError(
            f"none of the {len(candidates)} checkpoints in {checkpoints} verifies: --resume never starts anew"
        )
    return None


def by_metric(checkpoints: Path, metric: str) -> list[tuple[float, Path]]:
    """Checkpoints whose manifest has the metric, the lowest value first."""
    return sorted((value, path) for path, value in _values(checkpoints, metric))


def _values(checkpoints: Path, metric: str) -> Iterator[tuple[Path, float]]:
    for path in newest_first(checkpoints):
        try:
            value = json.loads((path / MANIFEST).read_text()).get("metrics", {}).get(metric)
        except (OSError, ValueError):
            continue  # verify() is where damage is told
        if value is not None:
            yield path, float(value)


def remove(directory: Path) -> None:
    """Take the checkpoint's name away in one step, then delete it."""
    gone = directory.with_name(f".{directory.name}.{os.getpid()}.removed")
    directory.rename(gone)
    shutil.rmtree(gone)


def clear_partial(checkpoints: Path) -> None:
    """Delete what killed saves and removals left."""
    for left in [*checkpoints.glob(".*.partial"), *checkpoints.glob(".*.removed")]:
        shutil.rmtree(left, ignore_errors=True)


def read_state(directory: Path) -> dict[str, Any]:
    """The tensors and numbers of a checkpoint, on the CPU.

    Raises:
        CheckpointError: the file holds something other than tensors and plain values, or cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(directory / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{directory / STATE} cannot be read: {reason}") from error
    return state


class CheckpointDirectory(CheckpointIO):
    """How Lightning's strategies write and read checkpoints here.

    A save that fails (disk full, directory not writable) is told and training goes on: the checkpoints
    before it are untouched.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        about = {"step": int(checkpoint["global_step"]), **(storage_options or {})}
        try:
            write(Path(path), lambda partial: torch.save(checkpoint, partial / STATE), about)
        except (OSError, RuntimeError) as error:
            rank_zero_warn(
                f"checkpoint {path} could not be saved ({error}); the ones before it are kept, training goes on"
            )

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_state(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
