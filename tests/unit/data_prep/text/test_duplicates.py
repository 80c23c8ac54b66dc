"""Equal documents are counted and named, and none is in two splits."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources.text_files import DOCUMENTS, Name, Piece, Reading, Sources
from data_prep.text import command as text
from data_prep.text.duplicates import EQUAL, SHARED, Duplicates
from data_prep.text.split import by_hash
from data_prep.workspace.report import NAMED, Report

VARIANTS: list[Callable[[str], str]] = [
    lambda written: written,
    lambda written: normalize("NFD", written),
    lambda written: f"  {written}\t",
    lambda written: written.replace(" ", "  \u00a0"),
    lambda written: f"{written}\n",
]


@given(
    st.lists(st.text("aé ñ", min_size=1, max_size=6).filter(lambda text: not text.isspace()), min_size=1, max_size=20),
    st.sampled_from([(0.3, 0.3), (0.5, 0.0), (0.0, 0.5)]),
)
def test_no_document_is_in_two_splits(written: list[str], shares: tuple[float, float]) -> None:
    home: dict[str, str] = {}
    variants = [Piece(variant(one), True, True) for one in written for variant in VARIANTS]
    for split, piece in by_hash(*shares)(iter(variants)):
        same = " ".join(normalize("NFC", piece.text).split())
        assert home.setdefault(same, split) == split


def test_line_ends_do_not_distinguish_documents_but_indentation_does() -> None:
    def splits(*texts: str) -> set[str]:
        return {split for split, _ in by_hash(0.4, 0.4)(Piece(text, True, True) for text in texts)}

    for number in range(40):
        assert len(splits(f"one {number}\ntwo\n", f"one {number}\r\ntwo\r\n")) == 1
    assert any(len(splits(f"if {number}:\n  x", f"if {number}:\nx")) == 2 for number in range(40))


def test_equal_documents_are_counted_and_named(tmp_path: Path) -> None:
    files = {"a.txt": "one\ntwo\none\n", "b.txt": "three\n two \n"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "test.txt").write_text("four\nthree\nfour\nthree\n")
    lines = ["--documents", "line", "--tokenizer", "byte", "--workers", "1", "--output", str(tmp_path / "out")]
    train = ["--train", *(str(tmp_path / name) for name in files)]
    assert text.main([*train, "--test", str(tmp_path / "test.txt"), *lines]) == 0
    noted = json.loads((tmp_path / "out" / "report.json").read_text())["noted"]
    assert noted[EQUAL]["first"] == [
        f"{tmp_path}/a.txt, document 3", f"{tmp_path}/b.txt, document 2", f"{tmp_path}/test.txt, document 3",
    ]  # fmt: skip
    assert noted[SHARED]["first"] == [f"{tmp_path}/test.txt, document 2", f"{tmp_path}/test.txt, document 4"]
    assert [noted[reason]["count"] for reason in (EQUAL, SHARED)] == [3, 2]


@pytest.mark.parametrize("copies", [NAMED, NAMED + 1, 3 * NAMED])
def test_all_equal_documents_are_counted_but_few_are_named(tmp_path: Path, copies: int) -> None:
    (tmp_path / "a.txt").write_text("long " * 10_000)  # several pieces
    sources = Sources(
        [Name(f"copy {number}", tmp_path / "a.txt") for number in range(copies)], Reading(DOCUMENTS["file"])
    )
    report, duplicates = Report(), Duplicates()
    pieces: Iterator[Piece] = duplicates.watched(sources.pieces(report))
    assert sum(1 for _ in pieces) > copies
    duplicates.note(report, [sources])
    assert report.noted == {EQUAL: copies - 1}
    assert report.names[EQUAL][0] == "copy 1, document 1"
