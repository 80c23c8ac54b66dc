"""Which document goes to which split: as given, by a stable hash of the document, or the last of the text."""

from collections.abc import Callable, Iterator

from data_prep.sources.text_files import Piece
from data_prep.workspace.splits import split_of

Assigned = Iterator[tuple[str, Piece]]
Cut = Callable[[Iterator[Piece]], Assigned]


def given(split: str) -> Cut:
    """All documents go to one split."""
    return lambda pieces: ((split, piece) for piece in pieces)


def by_hash(validation: float, test: float) -> Cut:
    """Each document goes where a hash of its beginning falls: equal documents together.

    Args:
        validation: share of the documents, in 0..1.
        test: share of the documents, in 0..1.
    """

    def assign(pieces: Iterator[Piece]) -> Assigned:
        split = "train"
        for piece in pieces:
            if piece.starts:
                split = split_of(piece.text, {"test": test, "validation": validation})
            yield split, piece

    return assign


def tail(validation: float, test: float, characters: int) -> Cut:
    """The text in order: first training, then validation, then test; a document on the edge is cut in two.

    Args:
        validation: share of the characters, in 0..1.
        test: share of the characters, in 0..1.
        characters: how many there are in all documents.
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
    """A document that goes on in another split ends in the one and starts in the other."""
    held: tuple[str, Piece] | None = None
    for split, piece in assigned:
        if held and held[0] != split:
            yield held[0], held[1]._replace(ends=True)
            held, piece = None, piece._replace(starts=True)
        if held:
            yield held
        held = split, piece
    if held:
        yield held
