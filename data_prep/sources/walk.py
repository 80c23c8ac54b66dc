"""The files of a directory: which are read, and which are left out for what reason."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import suffix_of
from pipeline.errors import DataError

SYSTEM = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
INNER = "in an inner folder with the name of a split, which is not read as one"
HIDDEN, BROKEN, SPECIAL, TWICE = "hidden", "broken link", "not a regular file", "already read through another link"


def walk(directory: Path, suffixes: Collection[str], report: Report) -> list[Path]:
    """Return the regular files below a directory with one of the suffixes, sorted by path.

    Linked folders are followed once. Hidden files and folders, those of operating systems, broken links, pipes,
    sockets, and files with other suffixes are left out and counted in the report.

    Args:
        directory: the directory.
        suffixes: suffixes in lower case, without those of compressions.
        report: counts what is left out.

    Raises:
        DataError: the directory or one below it cannot be read.
    """
    try:
        found = sorted(_files(directory, frozenset(suffixes), report, {os.path.realpath(directory)}))
    except OSError as error:
        raise DataError(f"{error.filename or directory} cannot be read: {error.strerror or error}") from error
    for file in found:
        inner = {part.lower() for part in file.relative_to(directory).parts[1:-1]}
        if any(not inner.isdisjoint(names) for names in SPLIT_NAMES.values()):
            report.note(str(file), INNER)
    return found


def _files(directory: Path, suffixes: frozenset[str], report: Report, seen: set[str]) -> Iterator[Path]:
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = directory / entry.name
        if entry.name.startswith(".") or entry.name in SYSTEM:
            report.leave_out(str(path), HIDDEN)
        elif entry.is_symlink() and not path.exists():  # also a link to itself
            report.leave_out(str(path), BROKEN)
        elif entry.is_dir():
            if (real := os.path.realpath(path)) in seen:
                report.leave_out(str(path), TWICE)
            else:
                seen.add(real)
                yield from _files(path, suffixes, report, seen)
        elif not entry.is_file():
            report.leave_out(str(path), SPECIAL)
        elif suffix_of(path) in suffixes:
            yield path
        else:
            report.leave_out(str(path), f"suffix {path.suffix or 'none'}")


def split_folders(directory: Path) -> dict[str, Path]:
    """Return the folders of the splits directly below a directory: train, and validation or test.

    `training`, `valid`, `val`, `dev` and `testing` are other names of them, in upper or lower case. A directory
    without a train folder, or with nothing but it, has no folders of splits.

    Raises:
        DataError: two folders are the same split.
    """
    found: dict[str, Path] = {}
    for folder in sorted(each for each in directory.iterdir() if each.is_dir()):
        split = next((split for split, names in SPLIT_NAMES.items() if folder.name.lower() in names), None)
        if split in found:
            raise DataError(f"{folder} and {found[split]} are both the {split} split. Rename or merge one of them")
        if split is not None:
            found[split] = folder
    return found if "train" in found and len(found) > 1 else {}


def split_files(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each split by a word of their names, such as `train.txt` and `wiki.valid.tokens`.

    There are none unless every name has the word of exactly one split, and one of them is train.
    """
    found: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[\W\d_]+", file.name.lower())
        splits = [split for split, names in SPLIT_NAMES.items() if not set(names).isdisjoint(words)]
        if len(splits) != 1:
            return {}
        found.setdefault(splits[0], []).append(file)
    return found if "train" in found and len(found) > 1 else {}


def name_of(path: str) -> str:
    """Return a path as a name for reports and comparisons: in NFC, with escapes for bytes that are not UTF-8."""
    return normalize("NFC", path.encode("utf-8", "backslashreplace").decode())
