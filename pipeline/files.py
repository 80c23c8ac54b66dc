"""Atomic, durable writes: a file or directory is complete or absent, even after a crash of the machine."""

import ctypes
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, flush it to disk and rename it to `path`."""
    temporary = path.with_name(f".{path.name}.new")
    write(temporary)
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def replace_directory(new: Path, target: Path) -> None:
    """Rename the directory `new` to `target`; an existing `target` is swapped out and removed."""
    if target.exists():
        _swap(new, target)
        shutil.rmtree(new, ignore_errors=True)  # the swap succeeded, even if NFS keeps parts of the old directory
    else:
        os.rename(new, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a directory, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(new: Path, old: Path) -> None:
    """Swap two directories: atomically where the system can, else `old` is briefly missing."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2 and renameat2(here, os.fsencode(new), here, os.fsencode(old), exchange) == 0:
        return
    aside = old.with_name(f".{old.name}.replaced")
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)
