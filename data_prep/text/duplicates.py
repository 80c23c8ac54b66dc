"""Equal documents: in which files they are, and whether they are in several splits."""

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from data_prep.sources.text_files import Piece, Sources
from data_prep.text.split import written_alike
from data_prep.workspace.report import NAMED, Report

EQUAL = "equal to an earlier document"
SHARED = "equal to a document of another split"


class Duplicates:
    """Hashes of the documents of one pass, with eight bytes for each document."""

    def __init__(self) -> None:
        self._hashes: list[array[int]] = []

    def watched(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Yield the pieces of one more part of the corpus."""
        self._hashes.append(hashes := array("q"))
        document = 0
        for piece in pieces:
            text, starts, ends, _ = piece
            document = hash(written_alike(text)) if starts else hash((document, hash(text)))
            if ends:
                hashes.append(document)
            yield piece

    def note(self, report: Report, parts: Sequence[Sources]) -> None:
        """Note the documents that are equal to others; the parts with a split of their own are compared."""
        earlier: Int64[np.ndarray, " N"] = np.zeros(0, np.int64)
        for sources, hashes in zip(parts, self._hashes, strict=True):
            part = np.frombuffer(hashes, np.int64)
            repeated = np.ones(len(part), bool)
            repeated[np.unique(part, return_index=True)[1]] = False
            shared = np.isin(part, earlier)
            for reason, found in ((SHARED, shared), (EQUAL, repeated & ~shared)):
                for index in np.flatnonzero(found)[:NAMED].tolist():
                    report.note(sources.place(index), reason)
                report.noted[reason] += max(0, int(found.sum()) - NAMED)
            report.noted += type(report.noted)()  # removes the zeros
            earlier = np.concatenate([earlier, part])
