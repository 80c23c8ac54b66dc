"""Assignment of documents to splits: as given, by a hash of the document, or by position in the text."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from unicodedata import normalize

from data_prep.sources.text_files import Piece
from data_prep.workspace.splits import split_of
from pipeline.dataset.text_normalization import identity

Assigned = Iterator[tuple[str, Piece]]
Cut = Callable[[Iterator[Piece]], Assigned]


def given(split: str) -> Cut:
    """Assign all documents to one split."""
    return lambda pieces: ((split, piece) for piece in pieces)


@lru_cache(maxsize=1)  # It is called twice in succession with the same text.
def written_alike(text: str) -> str:
    """Return the text by which equal documents are found.

    A document of one line is identified by its words. The white space inside a longer document is part of it, for
    example the indentation of code.
    """
    if "\n" not in text or "\n" not in text.strip():
        return identity(text)
    return (text if text.isascii() else normalize("NFC", text)).replace("\r\n", "\n")


def by_hash(validation: float, test: float) -> Cut:
    """Assign each document by a hash of its first piece, so that equal documents are in one split.

    Args:
        validation: share of the documents, in 0..1.
        test: share of the documents, in 0..1.
    """

    shares = {"test": test, "validation": validation}

    def assign(pieces: Iterator[Piece]) -> Assigned:
        split = "train"
        for piece in pieces:
            if piece.starts:
                split = split_of(written_alike(piece.text), shares)
            yield split, piece

    return assign


def tail(validation: float, test: float, characters: int) -> Cut:
    """Assign the text in order: training, validation, test; a document across an edge is divided.

    Args:
        validation: share of the characters, in 0..1.
        test: share of the characters, in 0..1.
        characters: number of characters of all documents.
    """
    train = int(round(characters * (1 - validation - test), 6))
    edges = [
        ("train", train),
        ("validation", int(round(characters * (1 - test), 6))),
        ("test", characters + 1),
    ]

    def slices(pieces: Iterator[Piece]) -> Assigned:
        left, at = list(edges), 0
        for piece in pieces:
            while at + len(piece.text) > left[0][1]:
                split, end = left.pop(0)
                if end > at:
                    yield split, Piece(piece.text[: end - at], piece.starts, False)
                    piece, at = piece._replace(text=piece.text[end - at :], starts=False), end
            yield left[0][0], piece
            at += len(piece.text)

    return lambda pieces: _closed(slices(pieces))


def _closed(assigned: Assigned) -> Assigned:
    """End a document at the edge of its split and start it again in the next one."""
    last: tuple[str, Piece] | None = None
    for split, piece in assigned:
        if last and last[0] != split:
            yield last[0], last[1]._replace(ends=True)
            last, piece = None, piece._replace(starts=True)
        if last:
            yield last
        last = split, piece
    if last:
        yield last
