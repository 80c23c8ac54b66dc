"""Reader of files of episodes: each record is a mapping of fields to the entries of its steps.

JSON lines, a JSON list, Parquet   a record per row: observations, actions and rewards, each a list with an entry
                                   per step, and optionally flags of the end (the layout of Minari's episodes);
                                   or steps, a list of objects with observation, action and reward (RLDS)
.npz                               one record: arrays over the steps of all episodes in sequence (D4RL)
"""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import open_packed, readable
from pipeline.dataset.codecs.table import read_records
from pipeline.errors import DataError

FIELDS = ("observations", "actions", "rewards")
ENDS = (
    *("terminated", "truncated", "terminateds", "truncateds", "terminations", "truncations"),
    *("terminals", "timeouts", "terminal", "timeout", "dones", "done"),
)
HDF5 = b"\x89HDF"
Record = tuple[str, Mapping[str, object]]


def read(path: Path, report: Report) -> Iterator[Record]:
    """Yield the name and the fields of the records of a file; the format is recognised by the content.

    Raises:
        DataError: the file is missing, damaged or of an unknown format.
    """
    if path.exists() and not path.is_file():  # A pipe cannot be read twice.
        raise DataError(f"{path}: expected a regular file. Name a file of episodes")
    with open_packed(path) as file, readable(path):
        head = file.peek(4)[:4]
    if head == HDF5:
        raise DataError(
            f"{path}: expected .npz, .jsonl or .parquet, got HDF5. Convert it with h5py: "
            "numpy.savez('episodes.npz', **{name: file[name][()] for name in ('observations', 'actions', 'rewards', "
            "'terminals', 'timeouts')})"
        )
    if path.suffix.lower() == ".npz" or head.startswith((b"PK", b"\x93NUM")):
        yield path.name, _arrays(path)
        return
    for number, fields in read_records(path, report.reject):
        yield f"{path.name}:{number}", fields


def _arrays(path: Path) -> dict[str, object]:
    """Read the arrays of an `.npz` file."""
    try:
        with readable(path):
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise DataError(
                    f"{path}: expected several named arrays, got one array (.npy). Save them with numpy.savez"
                )
            with loaded as arrays:
                found = {name: arrays[name] for name in (*FIELDS, *ENDS) if name in arrays}
                listed = ", ".join(arrays)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is damaged or not a .npz file of numbers ({error}). Write or copy it again") from error
    missing = [name for name in FIELDS if name not in found] or ["terminals"] * found.keys().isdisjoint(ENDS)
    if missing:
        raise DataError(f"{path} has no array {missing[0]}, only {listed:.200}. Add it with numpy.savez")
    return found
