"""Documents of every file format are read unchanged, invalid ones are reported, and splits never share one."""

import gzip
import json
import lzma
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources.spool import collect
from data_prep.sources.text_files import DOCUMENTS, PIECE, Name, Piece, Reading, Sources, find, in_pieces
from data_prep.text.split import by_hash, tail
from data_prep.workspace.report import NAMED, Report
from pipeline.errors import DataError

TEXT = "Ein Käfig\r\nvoller Narren\n\n\nund ein 😀\n"


def read(*paths: Path, documents: str = "file", **reading: object) -> tuple[list[str], Report]:
    """Return the documents of files and the report."""
    report = Report()
    names = [Name(path.name, path) for path in paths]
    found: list[str] = []
    for piece in Sources(names, Reading(DOCUMENTS[documents], **reading)).pieces(report):  # type: ignore[arg-type]
        assert piece.starts or found
        found = [*found, piece.text] if piece.starts else [*found[:-1], found[-1] + piece.text]
    return found, report


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("file", [TEXT]),
        ("line", ["Ein Käfig", "voller Narren", "und ein 😀"]),
        ("paragraph", ["Ein Käfig\r\nvoller Narren", "und ein 😀"]),
    ],
)
@pytest.mark.parametrize(("ending", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_text_is_cut_into_documents(tmp_path: Path, documents: str, expected: list[str], ending: str, pack) -> None:  # type: ignore[no-untyped-def]
    (path := tmp_path / f"a.txt{ending}").write_bytes(pack(TEXT.encode()))
    assert read(path, documents=documents)[0] == expected


def test_blank_lines_are_skipped_or_kept(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_text("a\n\n \nb\n")
    found, report = read(path, documents="line")
    assert (found, report.documents, report.empty) == (["a", "b"], 2, 2)
    found, report = read(path, documents="line", keep_empty=True)
    assert (found, report.documents, report.empty) == (["a", "", " ", "b"], 4, 0)


def test_the_bytes_that_eos_replaces_are_counted(tmp_path: Path) -> None:
    (path := tmp_path / "a.txt").write_bytes("é\nb\r\nc".encode())
    pieces = Sources([Name("a", path)], Reading(DOCUMENTS["line"])).pieces(Report())
    assert sum(len(piece.text.encode()) + piece.dropped for piece in pieces) == path.stat().st_size


def test_json_records_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    rows = ['{"body": "a\\nb"}', "", "{", '{"text": "x"}', '{"body": 3}', "[1]", '{"body": "\\ud800"}', '{"body": " "}']
    (path := tmp_path / "a.jsonl").write_text("\n".join(rows))
    found, report = read(path, field="body")
    assert (found, report.empty) == (["a\nb"], 2)
    no_text = ["a.jsonl:4", "a.jsonl:5", "a.jsonl:6"]
    assert report.names == {
        "invalid JSON": ["a.jsonl:3"],
        "no text in field 'body'": no_text,
        "not UTF-8": ["a.jsonl:7"],
    }


@pytest.mark.parametrize(("documents", "name"), [("file", "a.txt"), ("line", "a.txt:2"), ("paragraph", "a.txt:1")])
def test_undecodable_text_is_named_and_the_rest_is_read(tmp_path: Path, documents: str, name: str) -> None:
    (bad := tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe\n")
    (good := tmp_path / "b.txt").write_bytes(b"fine")
    found, report = read(bad, good, documents=documents)
    assert found == (["good", "fine"] if documents == "line" else ["fine"])
    assert report.names == {"not UTF-8": [f"{name} (invalid start byte)"]}


def test_parquet_rows_are_read_and_nulls_named(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "c"], "other": [1, 2, 3]})
    pq.write_table(table, path := tmp_path / "a.parquet")
    found, report = read(path)
    assert (found, report.names) == (["a", "c"], {"no text in column 'text'": ["a.parquet:2"]})
    with pytest.raises(DataError, match=r"--field=body: expected a column of a\.parquet \(text, other\)"):
        read(path, field="body")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.parquet"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, name: str) -> None:
    content = {"gz": gzip.compress(TEXT.encode() * 99), "xz": lzma.compress(TEXT.encode() * 99)}
    content["parquet"] = b"PAR1" + bytes(99)
    (path := tmp_path / name).write_bytes(content[name.split(".")[-1]][:-20])
    with pytest.raises(DataError, match=rf"{name} is damaged .*Download or copy it again"):
        read(path)


def test_a_directory_is_searched_in_order(tmp_path: Path) -> None:
    for name in ("b/z.txt", "a.jsonl", "b/c.parquet", "b/d.txt.gz", "b/notes.pdf", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [name.path.relative_to(tmp_path).as_posix() for name in find(str(tmp_path), Report())] == [
        "a.jsonl", "b/c.parquet", "b/d.txt.gz", "b/z.txt",
    ]  # fmt: skip


def test_an_unsupported_or_missing_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    with pytest.raises(DataError, match=r"has 1 files, but none with an extension \.txt, "):
        find(str(tmp_path), Report())
    with pytest.raises(DataError, match=r"unknown file extension '\.pdf'"):
        find(str(tmp_path / "a.pdf"), Report())
    with pytest.raises(DataError, match=r"b\.txt does not exist"):
        find(str(tmp_path / "b.txt"), Report())


def test_a_long_document_is_divided_at_lines_or_words() -> None:
    text = "word " * PIECE + "x" * (2 * PIECE) + "\n".join(["line"] * PIECE)
    pieces = list(in_pieces(text[at : at + 1000] for at in range(0, len(text), 1000)))
    assert "".join(piece.text for piece in pieces) == text
    assert max(len(piece.text) for piece in pieces) <= PIECE
    assert [piece.starts for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[0].text.endswith("word")
    assert pieces[-2].text.endswith("\n")


def test_the_hash_cut_is_stable_and_keeps_equal_documents_together() -> None:
    pieces = [Piece(f"document {index % 5000}", True, True) for index in range(10_000)]
    splits = [split for split, _ in by_hash(0.1, 0.2)(iter(pieces))]
    assert splits[:5000] == splits[5000:]
    assert abs(splits.count("test") / 10_000 - 0.2) < 0.02
    assert abs(splits.count("validation") / 10_000 - 0.1) < 0.02
    alone = [split for split, _ in by_hash(0.1, 0.2)(iter(pieces[42:43]))]
    assert alone == splits[42:43]


def test_the_parts_of_a_document_stay_together_under_the_hash_cut() -> None:
    parts = [Piece(f"{index}", index % 3 == 0, index % 3 == 2) for index in range(300)]
    splits = [split for split, _ in by_hash(0.3, 0.3)(iter(parts))]
    assert all(len(set(splits[at : at + 3])) == 1 for at in range(0, 300, 3))
    assert set(splits) == {"train", "validation", "test"}


@pytest.mark.parametrize("size", [1, 3, 4, 7, 10, 20])
@pytest.mark.parametrize("documents", [1, 2, 20])
def test_the_tail_cut_keeps_the_order_and_closes_every_split(size: int, documents: int) -> None:
    text = "abcdefghijklmnopqrst"
    length = len(text) // documents
    pieces = [
        piece
        for at in range(0, len(text), length)
        for document in [text[at : at + length]]
        for piece in [
            Piece(document[start : start + size], start == 0, start + size >= length)
            for start in range(0, length, size)
        ]
    ]
    found: dict[str, list[Piece]] = {"train": [], "validation": [], "test": []}
    for split, piece in tail(0.3, 0.2, len(text))(iter(pieces)):
        found[split].append(piece)
    assert ["".join(piece.text for piece in part) for part in found.values()] == [text[:10], text[10:16], text[16:]]
    for part in found.values():
        assert part[0].starts
        assert part[-1].ends
        assert all(before.ends == after.starts for before, after in pairwise(part))


def test_too_many_bad_records_fail_and_the_report_names_the_first_few() -> None:
    report = Report(documents=90)
    for index in range(2 * NAMED):
        report.reject(f"a:{index}", "invalid JSON")
    report.check(0.4)
    with pytest.raises(DataError, match=r"share=0.3: 40 of 130 documents are invalid .invalid JSON: 40, first a:0"):
        report.check(0.3)
    assert report.as_json()["bad"]["invalid JSON"] == {"count": 40, "first": [f"a:{index}" for index in range(NAMED)]}


def test_the_built_in_corpus_holds_every_passage_of_the_topics_once(tmp_path: Path) -> None:
    from pydoc_data.topics import topics

    [(shown, path)] = collect("builtin", tmp_path, "text", False, Report())
    assert shown == "builtin"
    texts, given = read(path)[0], [topics[name] for name in sorted(topics)]
    assert len(texts) == len(given)
    assert texts[0] == given[0]  # The first topic cannot repeat an earlier one.
    kept, all_passages = (Counter(words(each) for text in one for each in text.split("\n\n")) for one in (texts, given))
    assert set(kept) == set(all_passages)
    assert max(count for passage, count in all_passages.items() if len(passage) >= 40) > 1
    assert max(count for passage, count in kept.items() if len(passage) >= 40) == 1


def words(passage: str) -> str:
    """Return a passage without its indentation and line breaks."""
    return " ".join(passage.split())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_data_set_is_read_by_name(tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        rows = [json.dumps({"text": f"{split} {index}", "other": 1}) for index in range(3)]
        (tmp_path / "hub" / "data" / f"{split}.jsonl").write_text("\n".join(rows))
    [(_, path)] = collect(f"hub:{tmp_path / 'hub'}::test", tmp_path, "text", streaming, Report())
    assert read(path)[0] == ["test 0", "test 1", "test 2"]
    with pytest.raises(DataError, match=r"hub:.*nothing cannot be loaded"):
        collect(f"hub:{tmp_path / 'nothing'}", tmp_path, "text", streaming, Report())
