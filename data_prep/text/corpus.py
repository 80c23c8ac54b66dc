"""The documents of all sources of a command line, in pieces with their splits."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_prep.sources.spool import collect
from data_prep.sources.text_files import DOCUMENTS, FORMATS, Name, Reading, Sources
from data_prep.sources.walk import split_files, split_folders, walk
from data_prep.text import split
from data_prep.text.duplicates import Duplicates
from data_prep.workspace import options as shared
from data_prep.workspace.report import Report, progress
from data_prep.workspace.workspace import SPLITS, ordered

FEW = "too few documents to fill the splits by hash: the tail of the text is held out, as with --cut tail"
FOLDERS = "its folders are read as the splits"
FILES = "its files are read as the splits that their names contain"


def _by_hash(found: Sources, shares: Mapping[str, float]) -> split.Cut:
    return split.by_hash(shares["validation"], shares["test"])


def _tail(found: Sources, shares: Mapping[str, float]) -> split.Cut:
    pieces = progress(found.pieces(Report()), "measuring", found.total, lambda: found.done)
    return split.tail(shares["validation"], shares["test"], sum(len(piece.text) for piece in pieces))


def _fills_all(found: Sources, shares: Mapping[str, float]) -> bool:
    """Return whether the hashes of the documents select some for each split."""
    empty = {"train", *(name for name, share in shares.items() if share)}
    for name, _ in _by_hash(found, shares)(found.pieces(Report())):
        empty.discard(name)
        if not empty:
            return True
    return False


CUTS = {"hash": _by_hash, "tail": _tail}


class Corpus:
    """The pieces of all sources with their splits.

    Args:
        options: the command line.
        work: directory for copies of sources that are not files.
    """

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        reading = Reading(DOCUMENTS[options.documents], options.field, options.keep_empty)
        self._found = Report()  # what finding the files reports

        def sources(named: list[str]) -> Sources:
            given = (collect(one, work, options.field, options.streaming, self._found) for one in named)
            return Sources([name for names in given for name in names], reading)

        given = shared.sources(options)
        if given := given or self._folders(options.sources):
            self.parts = [(sources(named), split.given(name)) for name, named in given.items()]
            self.splits = list(given)
            return
        found, shares, cut = sources(options.sources), shared.shares(options), options.cut
        self.splits = [name for name in SPLITS if name == "train" or shares[name]]
        if cut is None and not _fills_all(found, shares):
            self._found.note(options.sources[0], FEW)
            cut = "tail"
        self.parts = [(found, CUTS[cut or "hash"](found, shares))]

    def _folders(self, sources: list[str]) -> dict[str, list[str]]:
        """Return the sources of the splits if the only source is a directory with a folder or files for each."""
        folder = Path(sources[0])
        if len(sources) > 1 or not folder.is_dir():
            return {}
        if not (folders := split_folders(folder)):
            return self._files(folder)
        found = {name: [str(folders[name])] for name in ordered(folders)}
        self._found.note(str(folder), FOLDERS, ", ".join(folders[name].name for name in found))
        for path in sorted(set(folder.iterdir()) - set(folders.values())):
            self._found.leave_out(str(path), "outside of the folders of the splits")
        return found

    def _files(self, folder: Path) -> dict[str, list[str]]:
        counted = Report()
        files = split_files(walk(folder, FORMATS, counted))
        if files:
            self._found.add(counted)
            counts = ", ".join(f"{len(files[name])} of {name}" for name in ordered(files))
            self._found.note(str(folder), FILES, counts)
        return {name: [*map(str, files[name])] for name in ordered(files)}

    def pieces(self, report: Report) -> split.Assigned:
        """Yield every piece with its split."""
        report.add(self._found)
        duplicates = Duplicates()
        for sources, cut in self.parts:
            yield from cut(duplicates.watched(sources.pieces(report)))
        duplicates.note(report, [sources for sources, _ in self.parts])

    @property
    def total(self) -> int:
        """Size of all files in bytes."""
        return sum(sources.total for sources, _ in self.parts)

    @property
    def done(self) -> int:
        """Bytes read in this pass."""
        return sum(sources.done for sources, _ in self.parts)

    @property
    def names(self) -> list[Name]:
        """All files."""
        return [name for sources, _ in self.parts for name in sources.names]

    def fingerprint(self) -> list[list[str | int]]:
        """Return the name, size and modification time of every file; the time is 0 for a copy of another source."""
        found: list[list[str | int]] = []
        for shown, path in self.names:
            status = path.stat()
            found.append([shown, status.st_size, status.st_mtime_ns if shown == str(path) else 0])
        return found

    def training_texts(self, report: Report, limit: float) -> Iterator[str]:
        """Yield the text of the training split, up to about `limit` characters."""
        sources, cut = self.parts[0]  # The first part holds the training split.
        pieces = cut(sources.pieces(report))
        for name, piece in progress(pieces, "reading for the tokenizer", sources.total, lambda: sources.done):
            if name == "train":
                yield piece.text
                limit -= len(piece.text)
            if limit <= 0:
                return
