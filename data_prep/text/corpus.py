"""The documents of all sources of a command line, in pieces with their splits."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from data_prep.sources.spool import collect
from data_prep.sources.text_files import DOCUMENTS, Name, Reading, Sources
from data_prep.text import split
from data_prep.workspace.report import Report, progress


def _by_hash(found: Sources, validation: float, test: float) -> split.Cut:
    return split.by_hash(validation, test)


def _tail(found: Sources, validation: float, test: float) -> split.Cut:
    pieces = progress(found.pieces(Report()), "measuring", found.total, lambda: found.done)
    return split.tail(validation, test, sum(len(piece.text) for piece in pieces))


CUTS = {"hash": _by_hash, "tail": _tail}


class Corpus:
    """The pieces of all sources with their splits.

    Args:
        options: the command line.
        work: directory for copies of sources that are not files.
    """

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        reading = Reading(DOCUMENTS[options.documents], options.field, options.keep_empty)

        def sources(named: list[str]) -> Sources:
            names = [name for one in named for name in collect(one, work, options.field, options.streaming)]
            return Sources(names, reading)

        given = {name: getattr(options, name) for name in ("train", "validation", "test")}
        self.parts = [(sources(named), split.given(name)) for name, named in given.items() if named]
        if options.sources:
            found = sources(options.sources)
            self.parts = [(found, CUTS[options.cut](found, options.validation_share, options.test_share))]

    def pieces(self, report: Report) -> split.Assigned:
        """Yield every piece with its split."""
        for sources, cut in self.parts:
            yield from cut(sources.pieces(report))

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
