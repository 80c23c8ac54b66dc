"""Sources of music: MIDI files, directories of them, MATLAB files of piano rolls, generated pieces.

Boulanger-Lewandowski, Bengio and Vincent (2012), "Modeling temporal dependencies in high-dimensional sequences",
publish piano rolls in the variables traindata, validdata and testdata: an array of frames x 88 keys for each piece.

Legend: T frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from data_prep.music.chorales import chorales
from data_prep.sources.walk import name_of, walk
from data_prep.workspace.options import builtin_count, is_builtin
from data_prep.workspace.report import Report, progress
from data_prep.workspace.workers import in_order
from pipeline.dataset.codecs import midi
from pipeline.dataset.codecs.mat import read_mat
from pipeline.dataset.codecs.midi import MidiError, MidiMusic, read_midi
from pipeline.dataset.music import KEYS, Piece
from pipeline.errors import DataError

MAT = ".mat"
SPLIT_VARIABLES = {"traindata": "train", "validdata": "validation", "testdata": "test"}
GENERATED = 200  # default number of generated pieces
BATCH = 16  # files per piece of work
EACH = 200  # files per worker process; fewer do not justify the start of a process
SHORTEST = 2  # frames: one to read, one to predict
ROLL_SHAPE = f"array that is not frames x {KEYS} keys"


class Found(NamedTuple):
    """A piece, and its split if the source defines one."""

    piece: Piece
    split: str | None


@dataclass(frozen=True)
class MidiReader:
    """Reads MIDI files in a worker process.

    Args:
        steps_per_beat: frames of a quarter note.
    """

    steps_per_beat: int

    def __call__(self, files: Sequence[Path]) -> list[MidiMusic | MidiError]:
        """Return the music of each file, or the reason why it is invalid."""
        return [self._read(file) for file in files]

    def _read(self, file: Path) -> MidiMusic | MidiError:
        try:
            return read_midi(file.read_bytes(), self.steps_per_beat)
        except OSError as error:
            return MidiError("file that cannot be read", error.strerror or str(error))
        except MidiError as error:
            return error


def find(source: str, steps_per_beat: int, workers: int, report: Report) -> Iterator[Found]:
    """Yield the valid pieces of a source in a fixed order; count and name the others in the report.

    Args:
        source: a MIDI file, a directory, a .mat file or builtin[:N].
        steps_per_beat: frames of a quarter note.
        workers: number of processes.
        report: counts pieces and files.

    Raises:
        DataError: the source does not exist, is damaged or holds no music.
    """
    if is_builtin(source):
        pieces = chorales(builtin_count(source, "pieces", GENERATED), steps_per_beat)
        yield from (found for each in pieces if (found := _checked(each, None, report)))
        return
    path = Path(source)
    if not path.is_dir() and not path.is_file():
        raise DataError(f"source {source} does not exist. Name a MIDI file, a directory, a .mat file or builtin")
    files = walk(path, (*midi.SUFFIXES, MAT), report) if path.is_dir() else [path]
    if not files:
        listed = ", ".join((*midi.SUFFIXES, MAT))
        raise DataError(f"directory {path} has no music ({listed}). Name another one")
    names = {file: name_of(file.relative_to(path).as_posix() if path.is_dir() else file.name) for file in files}
    for file in files:
        if file.suffix.lower() == MAT:
            yield from _rolls(file, names[file], report)
    scores = [file for file in files if file.suffix.lower() != MAT]
    yield from _scores(scores, names, MidiReader(steps_per_beat), workers, report)


def _rolls(path: Path, name: str, report: Report) -> Iterator[Found]:
    variables = read_mat(path)
    if not any(variables.values()):
        raise DataError(f"{path} has no arrays, only the variables {', '.join(variables) or 'none'}. Name another file")
    for variable, arrays in variables.items():
        for number, array in enumerate(arrays):
            shown = f"{name}:{variable}:{number}"
            if (frames := _frames(array, shown, report)) is not None:
                split = SPLIT_VARIABLES.get(variable)
                if found := _checked(Piece(shown, frames), split, report):
                    yield found


def _frames(array: np.ndarray | None, name: str, report: Report) -> Bool[np.ndarray, "T 88"] | None:
    if array is None or array.ndim != 2 or array.shape[1] != KEYS:
        report.reject(name, ROLL_SHAPE, "" if array is None else " x ".join(map(str, array.shape)))
        return None
    frames: Bool[np.ndarray, "T 88"] = array == 1
    if not (frames | (array == 0)).all():
        report.reject(name, "array with other values than 0 and 1")
        return None
    return frames


def _scores(
    files: Sequence[Path], names: dict[Path, str], reader: MidiReader, workers: int, report: Report
) -> Iterator[Found]:
    batches = [files[at : at + BATCH] for at in range(0, len(files), BATCH)]
    results = in_order(reader, batches, min(workers, max(1, len(files) // EACH)))
    done = 0
    shown = progress(results, "reading", len(files), lambda: done, ("files", 1.0))
    for batch, result in zip(batches, shown, strict=True):
        done += len(batch)
        for file, score in zip(batch, result, strict=True):
            if isinstance(score, MidiError):
                report.reject(names[file], score.reason, score.detail)
                continue
            if score.drums:
                report.note(names[file], "drums, which are left out", f"{score.drums} notes")
            if score.outside:
                report.note(names[file], "notes outside of the keyboard, which are left out", f"{score.outside} notes")
            if found := _checked(Piece(names[file], score.frames), None, report):
                yield found


def _checked(piece: Piece, split: str | None, report: Report) -> Found | None:
    """Return a piece that is long enough to predict; count it."""
    if len(piece.frames) < SHORTEST:
        report.reject(piece.name, f"fewer than {SHORTEST} frames", str(len(piece.frames)))
        return None
    if not piece.frames.any():
        report.reject(piece.name, "silence")
        return None
    report.documents += 1
    return Found(piece, split)


def identity(piece: Piece) -> bytes:
    """Return what identifies a piece in any key and with any silence around it."""
    sounding = np.flatnonzero(piece.frames.any(1))
    lowest = int(piece.frames.any(0).argmax())
    return np.packbits(np.roll(piece.frames[sounding[0] : sounding[-1] + 1], -lowest, 1)).tobytes()
