"""Documents are assigned to splits by a hash or by position; a document across an edge is closed and reopened."""

from hashlib import blake2b
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources.text_files import Piece

from data_prep.text.split import by_hash, given as given_split, tail  # isort: skip

TEXTS = [f"document {number} of many" for number in range(400)]


def place(text: str) -> float:
    """Return the first eight bytes of the hash as a number in [0, 1)."""
    return int(blake2b(text.encode(), digest_size=8).hexdigest(), 16) / 2**64


def test_all_documents_may_go_to_one_split() -> None:
    pieces = [Piece(text, True, True) for text in TEXTS[:3]]
    assert list(given_split("test")(iter(pieces))) == [("test", piece) for piece in pieces]


def test_a_document_is_assigned_by_its_hash() -> None:
    assigned = list(by_hash(validation=0.2, test=0.1)(Piece(text, True, True) for text in TEXTS))
    for split, piece in assigned:
        at = place(piece.text)
        assert split == ("test" if at < 0.1 else "validation" if at < 0.1 + 0.2 else "train")
    assert {split for split, _ in assigned} == {"train", "validation", "test"}
    assert [piece.text for _, piece in assigned] == TEXTS


def test_the_parts_of_a_document_stay_together() -> None:
    for first in TEXTS[:50]:
        pieces = [Piece(first, True, False), Piece("the middle", False, False), Piece("the end", False, True)]
        found = [split for split, _ in by_hash(0.3, 0.3)(iter(pieces))]
        assert len(set(found)) == 1
        assert found[:1] == [split for split, _ in by_hash(0.3, 0.3)(iter([Piece(first, True, True)]))]


def test_the_tail_of_the_text_is_held_out() -> None:
    documents = ["abcdefghij", "klmnopqrst"]
    assigned = list(tail(0.2, 0.1, 20)(Piece(text, True, True) for text in documents))
    assert assigned == [
        ("train", Piece("abcdefghij", True, True)),
        ("train", Piece("klmn", True, True)),
        ("validation", Piece("opqr", True, True)),
        ("test", Piece("st", True, True)),
    ]


def test_an_edge_between_documents_divides_no_document() -> None:
    assigned = list(tail(0.25, 0.25, 8)(Piece(text, True, True, 1) for text in ("abcd", "ef", "gh")))
    assert [split for split, _ in assigned] == ["train", "validation", "test"]
    assert all(piece.starts and piece.ends and piece.dropped == 1 for _, piece in assigned)


@given(
    st.lists(st.lists(st.text("xyz", min_size=1, max_size=9), min_size=1, max_size=3), min_size=1, max_size=6),
    st.sampled_from([(0.2, 0.1), (0.5, 0.25), (0.0, 0.3), (0.3, 0.0), (0.0, 0.0)]),
)
def test_every_character_is_in_its_split_and_documents_are_closed(
    documents: list[list[str]], shares: tuple[float, float]
) -> None:
    pieces = [
        Piece(text, number == 0, number == len(parts) - 1) for parts in documents for number, text in enumerate(parts)
    ]
    whole = "".join(piece.text for piece in pieces)
    validation, test = shares
    assigned = list(tail(validation, test, len(whole))(iter(pieces)))
    edges = [0, int(round(len(whole) * (1 - validation - test), 6)), int(round(len(whole) * (1 - test), 6)), len(whole)]
    for split, (first, last) in zip(("train", "validation", "test"), pairwise(edges), strict=True):
        mine = [piece for name, piece in assigned if name == split]
        assert "".join(piece.text for piece in mine) == whole[first:last]
        opened = False
        for piece in mine:
            assert piece.starts != opened
            opened = not piece.ends
        assert not opened


@pytest.mark.parametrize("characters", [10, 30, 70])
def test_shares_without_an_exact_float_divide_at_the_rounded_character(characters: int) -> None:
    # In floating point, 1 - 0.7 - 0.2 is a little less than 0.1.
    assigned = list(tail(0.7, 0.2, characters)(iter([Piece("x" * characters, True, True)])))
    assert [len(piece.text) * 10 // characters for _, piece in assigned] == [1, 7, 2]
