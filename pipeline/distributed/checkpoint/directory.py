"""A checkpoint is a directory that is written under a temporary name, hashed, renamed, and verified before reading.

step-00001200/manifest.json           step, metrics, size and hash of every file, and its own hash
              state.pt                loops, callbacks, schedule, carried state: plain values
              run.json, config.yaml   copies of the run's files
              rank-00000.safetensors  shards of weights and optimizer state, one file per process

So a directory of that name was complete once, and later damage is detected by its hash. Reading never executes code
from a file.
"""

import hashlib
import json
import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypedDict

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from pipeline.distributed.checkpoint.local_state import OptimizerRecord
from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, ShardReader
from pipeline.errors import CheckpointError
from pipeline.files import replace_directory, sha256, sync

STATE, MANIFEST = "state.pt", "manifest.json"
OWN: Final = "sha256"  # key of the manifest's own hash
SEEN = 30.0  # seconds until a file written on one node is visible on another, at most
NAME = re.compile(r"step-\d{8,}")


class FileEntry(TypedDict):
    """Size and hash of a file."""

    bytes: int
    sha256: str


class Manifest(TypedDict, total=False):
    """The contents of manifest.json."""

    step: int
    metrics: dict[str, float]
    strategy: str
    world_size: int
    files: dict[str, FileEntry]
    sha256: str


class Writing:
    """A checkpoint that all processes write in the background while training continues.

    Each process writes its shards, and the first one also the plain values, to a temporary directory in a thread.
    When all have finished, the first process publishes it.

    Args:
        directory: final path of the checkpoint.
        save: called with a directory, to which it writes the files of this process.
        rank: rank of this process.
    """

    def __init__(self, directory: Path, save: Callable[[Path], None], rank: int) -> None:
        self.directory = directory
        self.partial = directory.with_name(f".{directory.name}.partial")
        self.save, self.rank = save, rank
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._write, name="checkpoint", daemon=True)
        self.thread.start()

    @property
    def busy(self) -> bool:
        """Whether this process is still writing."""
        return self.thread.is_alive()

    def publish(self, about: Manifest, processes: int) -> None:
        """Rename the directory; called on the first process, when no process is busy and none has failed.

        Args:
            about: entries of the manifest besides the files.
            processes: number of processes that have written.

        Raises:
            OSError: publishing failed. The temporary directory is removed.
        """
        try:
            files: dict[str, FileEntry] = {}
            for listing in self._listings(processes):
                files |= json.loads(listing.read_text())
                listing.unlink()
            manifest: Manifest = {**about, "files": files}
            (self.partial / MANIFEST).write_text(json.dumps(manifest | {OWN: _hash(manifest)}, indent=1))
            sync(self.partial / MANIFEST)
            sync(self.partial)
            replace_directory(self.partial, self.directory)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Remove the temporary directory; earlier checkpoints are not changed."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _listings(self, processes: int) -> list[Path]:
        """Return the processes' lists of files, which may become visible late on a network file system."""
        until = time.monotonic() + SEEN
        while len(listings := sorted(self.partial.glob("*.files.json"))) < processes:
            if time.monotonic() > until:
                raise OSError(
                    f"files of {processes - len(listings)} processes are missing. Place the run on a file system that "
                    "all nodes share."
                )
            time.sleep(0.1)
        return listings

    def _write(self) -> None:
        own = self.partial / f"rank-{self.rank:05d}"
        try:
            own.mkdir(parents=True, exist_ok=True)
            self.save(own)
            files = {path.name: _describe(path) for path in sorted(own.iterdir())}
            for name in files:
                sync(own / name)
                (own / name).rename(self.partial / name)
            own.rmdir()
            (self.partial / f"{own.name}.files.json").write_text(json.dumps(files))
        except Exception as error:  # training continues; the main thread reports the error
            self.error = error


def verify_checkpoint(directory: Path) -> Manifest:
    """Verify the hash of every file of a checkpoint and return its manifest.

    Raises:
        CheckpointError: a file is missing, truncated or changed; the message names it.
    """
    try:
        manifest: Manifest = json.loads((directory / MANIFEST).read_text())
        if manifest.pop(OWN, None) not in (None, _hash(manifest)):  # early manifests have none
            raise CheckpointError(f"{directory / MANIFEST} does not match its hash: it was changed")
        files = manifest["files"]
        for name, written in files.items():
            if _describe(directory / name) != written:
                raise CheckpointError(f"{directory / name} does not match its hash: it was truncated or changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory} is not a complete checkpoint: {error}") from error
    return manifest


def newest_first(checkpoints: Path) -> list[Path]:
    """Return the checkpoints of a run, the latest step first."""
    found = (path for path in checkpoints.glob("step-*") if NAME.fullmatch(path.name))  # without copies and archives
    return sorted(found, key=step_of, reverse=True)


def step_of(directory: Path) -> int:
    """Return the optimizer step in a checkpoint's name."""
    return int(directory.name.removeprefix("step-"))


def checkpoint_name(step: int) -> str:
    """Return the name of the checkpoint of an optimizer step."""
    return f"step-{step:08d}"


def latest(checkpoints: Path, report: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """Return the newest valid checkpoint and its manifest, or None without any checkpoint.

    Args:
        checkpoints: the directory of checkpoints.
        report: called with a line for each damaged checkpoint that is skipped.

    Raises:
        CheckpointError: there are checkpoints, but none is valid.
    """
    candidates = newest_first(checkpoints)
    for directory in candidates:
        try:
            return directory, verify_checkpoint(directory)
        except CheckpointError as error:
            report(f"checkpoint skipped: {error}")
    if candidates:
        raise CheckpointError(
            f"none of the {len(candidates)} checkpoints in {checkpoints} is valid. "
            "Use --resume never to start from the beginning."
        )
    return None


def by_metric(checkpoints: Path, metric: str) -> list[tuple[float, Path]]:
    """Return value and path of the checkpoints whose manifest has the metric, the lowest value first."""
    return sorted((value, path) for path, value in _values(checkpoints, metric))


def _values(checkpoints: Path, metric: str) -> Iterator[tuple[Path, float]]:
    for path in newest_first(checkpoints):
        try:
            value = json.loads((path / MANIFEST).read_text()).get("metrics", {}).get(metric)
        except (OSError, ValueError):
            continue  # verify_checkpoint reports damage
        if value is not None and math.isfinite(value):
            yield path, float(value)


def put_aside(directory: Path) -> None:
    """Rename a damaged checkpoint so that it is not listed any more; nothing is deleted."""
    number, aside = 1, directory.with_name(f"damaged-{directory.name}")
    while aside.exists():
        number, aside = number + 1, directory.with_name(f"damaged-{directory.name}~{number}")
    directory.rename(aside)


def remove(directory: Path) -> None:
    """Rename a checkpoint, then delete it; the next start deletes files that were still in use."""
    gone = directory.with_name(f".{directory.name}.{os.getpid()}.removed")
    directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)  # NFS keeps open files


def clear_partial(checkpoints: Path) -> None:
    """Delete the remains of interrupted saves and removals."""
    for remains in [*checkpoints.glob(".step-*.partial"), *checkpoints.glob(".step-*.removed")]:
        shutil.rmtree(remains, ignore_errors=True)


def read_plain(directory: Path) -> dict[str, Any]:
    """Read the part of a checkpoint other than weights and optimizer state, on the CPU.

    Raises:
        CheckpointError: the file contains something other than tensors and plain values, or cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(directory / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{directory / STATE} cannot be read: {reason}") from error
    return state


def read_state(directory: Path) -> dict[str, Any]:
    """Read a whole checkpoint of any strategy on one process, on the CPU.

    `state_dict` and `optimizer_states` have the form of torch's `state_dict()`.

    Raises:
        CheckpointError: a file contains something other than tensors and plain values, or cannot be read.
    """
    state, shards = read_plain(directory), ShardReader(directory)
    weights = {name.removeprefix(WEIGHTS): shards.whole(name) for name in shards if name.startswith(WEIGHTS)}
    kept = state.pop("optimizer")
    state["state_dict"] = weights | {name: weights[first] for name, first in state.pop("aliases").items()}
    state["optimizer_states"] = [_by_number(kept, shards)]
    return state


def _by_number(kept: OptimizerRecord, shards: ShardReader) -> dict[str, object]:
    """Return an optimizer's state with torch's numbers of parameters in place of their names."""
    groups = kept["groups"]
    numbers = {name: number for number, name in enumerate(name for group in groups for name in group["params"])}
    state = {numbers[name]: dict(values) for name, values in kept["values"].items()}
    for full in (name for name in shards if name.startswith(OPTIMIZER)):
        name, key = full.removeprefix(OPTIMIZER).rsplit("/", 1)
        state.setdefault(numbers[name], {})[key] = shards.whole(full)
    numbered = [{**group, "params": [numbers[name] for name in group["params"]]} for group in groups]
    return {"state": state, "param_groups": numbered}


class CheckpointDirectory(CheckpointIO):
    """Lightning's reader of checkpoints for strategies without partitioned models; `Checkpoints` writes them."""

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_state(Path(path))

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
        raise NotImplementedError("trainer.save_checkpoint writes another format. Call Checkpoints.save.")

    def remove_checkpoint(self, path: str | Path) -> None:
        remove(Path(path))


def _hash(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest without its own hash."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _describe(path: Path) -> FileEntry:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
