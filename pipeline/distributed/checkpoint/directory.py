"""A checkpoint is a directory: written under another name, hashed, renamed; verified before it is read.

step-00001200/manifest.json           step, metrics, the size and hash of every file, and its own hash
              state.pt                loops, callbacks, schedule, carried state: plain values
              run.json, config.yaml   copies of the run's
              rank-00000.safetensors  pieces of weights and optimizer state, a file for each process

So a directory of that name is either whole or damaged later, and damage is found by its hash. Reading never
executes code from a file.
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
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, Pieces
from pipeline.errors import CheckpointError
from pipeline.files import replace_directory, sha256, sync

STATE, MANIFEST = "state.pt", "manifest.json"
OWN = "sha256"  # the manifest's own hash, in itself
SEEN = 30.0  # seconds until one node sees what another wrote, at the latest
NAME = re.compile(r"step-\d{8,}")
Manifest = dict[str, Any]


class Writing:
    """A checkpoint that is being written, by every process, while training goes on.

    Each process writes its pieces, the first one the plain values as well, into a directory of another
    name, in a thread. When all have finished, the first process publishes it.

    Args:
        directory: the checkpoint's final name.
        save: writes this process's files into the directory that it is given.
        rank: of this process.
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
        """Whether this process still writes."""
        return self.thread.is_alive()

    def publish(self, about: Manifest, processes: int) -> None:
        """Give the directory its name; on the first process, when no process is busy and none has failed.

        Args:
            about: what the manifest tells besides the files.
            processes: that have written.

        Raises:
            OSError: it could not be; nothing is left under the temporary name.
        """
        try:
            files: Manifest = {}
            for told in self._told(processes):
                files |= json.loads(told.read_text())
                told.unlink()
            manifest = {**about, "files": files}
            (self.partial / MANIFEST).write_text(json.dumps(manifest | {OWN: _hash(manifest)}, indent=1))
            sync(self.partial / MANIFEST)
            sync(self.partial)
            replace_directory(self.partial, self.directory)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Leave nothing of it; the checkpoints before it are untouched."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def _told(self, processes: int) -> list[Path]:
        """What each process says that it wrote; on a network's file system it may be seen a little later."""
        until = time.monotonic() + SEEN
        while len(told := sorted(self.partial.glob("*.files.json"))) < processes:
            if time.monotonic() > until:
                raise OSError(
                    f"the parts of {processes - len(told)} processes are not here: the run must lie on a "
                    "file system that all nodes share"
                )
            time.sleep(0.1)
        return told

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
        except Exception as error:  # whatever it is, training goes on; the lead process tells
            self.error = error


def verify_checkpoint(directory: Path) -> Manifest:
    """The manifest of a checkpoint whose every file is what was written.

    Raises:
        CheckpointError: a file is missing, truncated or changed; the message names it.
    """
    try:
        manifest: Manifest = json.loads((directory / MANIFEST).read_text())
        if manifest.pop(OWN, None) not in (None, _hash(manifest)):  # the first ones had none
            raise CheckpointError(f"{directory / MANIFEST} is not what was written: changed")
        files = manifest["files"]
        for name, written in files.items():
            if _describe(directory / name) != written:
                raise CheckpointError(f"{directory / name} is not what was written: truncated or changed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory} is no whole checkpoint: {error}") from error
    return manifest


def newest_first(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run, the latest step first."""
    there = (path for path in checkpoints.glob("step-*") if NAME.fullmatch(path.name))  # no copies, no archives
    return sorted(there, key=step_of, reverse=True)


def step_of(directory: Path) -> int:
    """The optimizer step that a checkpoint's name tells."""
    return int(directory.name.removeprefix("step-"))


def checkpoint_name(step: int) -> str:
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
            return directory, verify_checkpoint(directory)
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
        if value is not None and math.isfinite(value):
            yield path, float(value)


def put_aside(directory: Path) -> None:
    """Rename a damaged checkpoint, so that it does not count as one of the newest; nothing is deleted."""
    number, aside = 1, directory.with_name(f"damaged-{directory.name}")
    while aside.exists():
        number, aside = number + 1, directory.with_name(f"damaged-{directory.name}~{number}")
    directory.rename(aside)


def remove(directory: Path) -> None:
    """Take the checkpoint's name away in one step, then delete it; what somebody still reads, the next start clears."""
    gone = directory.with_name(f".{directory.name}.{os.getpid()}.removed")
    directory.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)  # NFS keeps files that are open


def clear_partial(checkpoints: Path) -> None:
    """Delete what killed saves and removals left."""
    for left in [*checkpoints.glob(".step-*.partial"), *checkpoints.glob(".step-*.removed")]:
        shutil.rmtree(left, ignore_errors=True)


def read_plain(directory: Path) -> dict[str, Any]:
    """What a checkpoint holds besides weights and optimizer state, on the CPU.

    Raises:
        CheckpointError: the file holds something other than tensors and plain values, or cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(directory / STATE, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{directory / STATE} cannot be read: {reason}") from error
    return state


def read_state(directory: Path) -> dict[str, Any]:
    """A checkpoint as one process loads it, whole and on the CPU, whatever strategy wrote it.

    `state_dict` and `optimizer_states` are as torch's `state_dict()` gives them.

    Raises:
        CheckpointError: a file holds something other than tensors and plain values, or cannot be read.
    """
    state, pieces = read_plain(directory), Pieces(directory)
    weights = {name.removeprefix(WEIGHTS): pieces.whole(name) for name in pieces if name.startswith(WEIGHTS)}
    kept = state.pop("optimizer")
    state["state_dict"] = weights | {name: weights[first] for name, first in state.pop("aliases").items()}
    state["optimizer_states"] = [_by_number(kept["groups"], kept["values"], pieces)]
    return state


def _by_number(groups: list[dict[str, Any]], values: dict[str, Any], pieces: Pieces) -> dict[str, Any]:
    """An optimizer's state with the numbers that torch gives parameters instead of their names."""
    numbers = {name: number for number, name in enumerate(name for group in groups for name in group["params"])}
    state: dict[int, dict[str, Any]] = {numbers[name]: dict(those) for name, those in values.items()}
    for full in (name for name in pieces if name.startswith(OPTIMIZER)):
        name, key = full.removeprefix(OPTIMIZER).rsplit("/", 1)
        state.setdefault(numbers[name], {})[key] = pieces.whole(full)
    named = [{**group, "params": [numbers[name] for name in group["params"]]} for group in groups]
    return {"state": state, "param_groups": named}


class CheckpointDirectory(CheckpointIO):
    """How Lightning reads checkpoints here for strategies that hold the whole model; `Checkpoints` writes them."""

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_state(Path(path))

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        raise NotImplementedError("trainer.save_checkpoint writes another format: call Checkpoints.save")

    def remove_checkpoint(self, path: Any) -> None:
        remove(Path(path))


def _hash(manifest: Manifest) -> str:
    """The SHA-256 of a manifest without its own hash."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}
