"""Files and directories that are there whole or not at all, even after a crash of the machine."""

import ctypes
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, write: Callable[[Path], Any]) -> None:
    """Have `write` fill a temporary file, force it to disk and rename it to `path`."""
    temporary = path.with_name(f".{path.name}.new")
    write(temporary)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def replace_directory(new: Path, target: Path) -> None:
    """Give the directory `new` the name `target`; a directory that has it is swapped out and removed."""
    if target.exists():
        _swap(new, target)
        shutil.rmtree(new, ignore_errors=True)  # the new one is there, whatever NFS keeps of the old one
    else:
        os.rename(new, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Force a file, or the names in a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(new: Path, old: Path) -> None:
    """Swap two directories: in one step where the system can, else with a moment without `old`."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2 and renameat2(here, os.fsencode(new), here, os.fsencode(old), exchange) == 0:
        return
    aside = old.with_name(f".{old.name}.replaced")
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)
