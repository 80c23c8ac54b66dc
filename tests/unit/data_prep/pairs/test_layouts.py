"""Pairs in the layouts of published corpora are read right, and surplus columns are never cut off."""

import json
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.pairs import command as pairs
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError

ALL = ["--tokenizer", "byte", "--validation-share", "0", "--test-share", "0"]
Capture = pytest.CaptureFixture[str]


def read(folder: Path, *arguments: object) -> list[tuple[str, list[str]]]:
    """Prepare all pairs as training data and return their texts."""
    output = folder / f"out{len(list(folder.iterdir()))}"
    assert pairs.main([*map(str, arguments), *ALL, "--output", str(output)]) == 0
    rows = Dataset.open(output, kind="pairs").splits["train"]
    return [(rows.value("text", row), rows.references(row)) for row in range(rows.rows)]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    for name, content in (("a.src", "one\ntwo\n"), ("a.tgt", "eins\nzwei\n"), ("a.tsv", "one\teins\ntwo\tzwei\n")):
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
    rows = [{"source": "one", "target": "eins"}, {"source": "two", "target": "zwei"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8-sig")
    expected = [("one", ["eins"]), ("two", ["zwei"])]
    for files in (("a.src", "a.tgt"), ("a.tsv",), ("a.jsonl",)):
        assert read(tmp_path, *(tmp_path / name for name in files)) == expected


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused_with_the_conversion(tmp_path: Path, encoding: str) -> None:
    for name in ("a.src", "a.tgt", "a.tsv", "a.jsonl"):
        (tmp_path / name).write_bytes("some text\tmore text\n".encode(encoding) * 9)
    for files in (("a.src", "a.tgt"), ("a.tsv",), ("a.jsonl",)):
        with pytest.raises(DataError, match=rf"{files[0]}: expected UTF-8, got UTF-.*iconv -f UTF-"):
            read(tmp_path, *(tmp_path / name for name in files))


def test_columns_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    (tmp_path / "deu.txt").write_text('Go.\tGeh.\tCC-BY\nA "quote\tEin "Zitat\tCC-BY\n')
    expected = [("Go.", ["Geh."]), ('A "quote', ['Ein "Zitat'])]
    with pytest.raises(DataError, match="more than two columns: choose two, such as --source-field 1"):
        read(tmp_path, tmp_path / "deu.txt")
    assert read(tmp_path, tmp_path / "deu.txt", "--source-field", 1, "--target-field", 2) == expected
    (tmp_path / "named.tsv").write_text("en\tlicence\tde\n" + 'Go.\tCC\tGeh.\nA "quote\tCC\tEin "Zitat\n')
    assert read(tmp_path, tmp_path / "named.tsv", "--source-field", "en", "--target-field", "de") == expected
    with pytest.raises(DataError, match=r"--target-field=fr: expected a column of .*named.tsv \(en, licence, de\)"):
        read(tmp_path, tmp_path / "named.tsv", "--source-field", "en", "--target-field", "fr")
    with pytest.raises(DataError, match=r"deu.txt:1: expected at least 4 columns, got 3"):
        read(tmp_path, tmp_path / "deu.txt", "--source-field", 4, "--target-field", 2)
    for fields in (["--target-field", 2], ["--source-field", 0, "--target-field", 1]):
        with pytest.raises(ConfigError, match="expected two names, or two numbers of columns from 1"):
            read(tmp_path, tmp_path / "deu.txt", *fields)


def test_a_header_with_the_usual_names_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("target\tsource\neins\tone\n")
    assert read(tmp_path, tmp_path / "a.tsv") == [("one", ["eins"])]


def test_a_header_in_other_letters_is_not_a_pair(tmp_path: Path) -> None:
    for name, line in (("a.tsv", "Source\tTARGET\neins\tone\n"), ("a.csv", "Source,TARGET\neins,one\n")):
        (tmp_path / name).write_text(line)
        with pytest.raises(DataError, match="Source, TARGET"):
            read(tmp_path, tmp_path / name)


def test_a_first_line_of_language_codes_is_noted(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.tsv").write_text("en\tde\none\teins\n")
    assert len(read(tmp_path, tmp_path / "a.tsv")) == 2
    assert "1 x two language codes: for a header add --source-field and --target-field" in capsys.readouterr().out
    options = ["--source-field", "en", "--target-field", "de"]
    assert read(tmp_path, tmp_path / "a.tsv", *options) == [("one", ["eins"])]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_texts_are_composed(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    (tmp_path / "a.tsv").write_text(normalize(form, "café\tÉté\n"), encoding="utf-8")
    assert read(tmp_path, tmp_path / "a.tsv") == [("café", ["Été"])]
    assert read(tmp_path, tmp_path / "a.tsv", "--lowercase") == [("café", ["été"])]


def test_two_files_with_both_sides_are_not_parallel(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a.tsv", "a.csv", "a.jsonl", "a.json.gz", "a.parquet"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ConfigError, match="expected two parallel text files, got files with both sides"):
            read(tmp_path, tmp_path / name, tmp_path / name)
    (tmp_path / "a.txt").write_text("one\teins\n")
    assert read(tmp_path, tmp_path / "a.txt", tmp_path / "a.txt") == [("one\teins", ["one\teins"])]
    assert "1 x tab in both lines: the two files are parallel only if each has one side" in capsys.readouterr().out


def test_semicolons_divide_a_table_with_commas_in_names_and_texts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("source;target, German\none, two;eins, zwei\nthree;drei\n")
    found = read(tmp_path, tmp_path / "a.csv", "--target-field", "target, German")
    assert found == [("one, two", ["eins, zwei"]), ("three", ["drei"])]


def test_rows_with_another_number_of_columns_are_invalid(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.tsv").write_text("one\teins\ntwo\tzwei\tCC\nthree\n\nfour\tvier\n")
    assert read(tmp_path, tmp_path / "a.tsv", "--max-bad-share", 0.5) == [("one", ["eins"]), ("four", ["vier"])]
    printed = capsys.readouterr().out
    assert "read 2 pairs, skipped 1 empty, 2 invalid" in printed
    assert (
        f"1 x more than two columns: choose two, such as --source-field 1 --target-field 2: {tmp_path}/a.tsv:2"
        in printed
    )
    assert rf"1 x no delimiter '\t': {tmp_path}/a.tsv:3" in printed


def test_tables_and_records_are_read_by_their_fields(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('en,de\n"one, two","eins, zwei"\n')
    pq.write_table(pa.table({"en": ["one, two"], "de": ["eins, zwei"]}), tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps([{"en": "one, two", "de": "eins, zwei"}]))
    for name in ("a.csv", "a.parquet", "a.json"):
        found = read(tmp_path, tmp_path / name, "--source-field", "en", "--target-field", "de")
        assert found == [("one, two", ["eins, zwei"])]
    (tmp_path / "b.csv").write_text('"one, two","eins, zwei"\n')
    assert read(tmp_path, tmp_path / "b.csv", "--source-field", 1, "--target-field", 2) == [
        ("one, two", ["eins, zwei"])
    ]
    with pytest.raises(DataError, match=r"a.csv has the columns en, de. Choose two by name or number"):
        read(tmp_path, tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"source": "a", "target": []}, "no target in the list of targets"),
        ({"source": "a", "target": [""]}, "empty target"),
        ({"source": "a", "target": None}, "no texts in fields 'source' and 'target'"),
        ({"source": None, "target": "b"}, "no texts in fields 'source' and 'target'"),
        ({"source": "a", "target": 3}, "no texts in fields 'source' and 'target'"),
        ({"source": 3, "target": "b"}, "no texts in fields 'source' and 'target'"),
        ({"source": "a", "target": ["b", None]}, "no texts in fields 'source' and 'target'"),
        ({"source": "a", "target": {"de": "b"}}, "no texts in fields 'source' and 'target'"),
        ({"source": ["a"], "target": "b"}, "no texts in fields 'source' and 'target'"),
        ({"source": "a"}, "no texts in fields 'source' and 'target'"),
        ({"source": "a", "target": "b\0"}, "contains a NUL character"),
        (["a", "b"], "not a JSON object"),
    ],
)
def test_a_record_without_texts_is_invalid(tmp_path: Path, record: object, reason: str, capsys: Capture) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"source": "x", "target": "y"}}\n{json.dumps(record)}\n')
    assert read(tmp_path, tmp_path / "a.jsonl", "--max-bad-share", 0.5) == [("x", ["y"])]
    assert f"1 x {reason}: {tmp_path}/a.jsonl:2" in capsys.readouterr().out


def test_pronouncing_dictionaries_are_read_with_variants_and_comments(tmp_path: Path, capsys: Capture) -> None:
    old = ";;; comment\nA  AH0\nA(1)  EY1\n#HASH-MARK  HH AE1 SH\n"
    new = "a AH0\na(2) EY1 # letter\n#hash-mark HH AE1 SH\n"
    tabs = new.replace(" AH0", "\tAH0").replace(" EY1", "\tEY1").replace("mark HH", "mark\tHH")
    for name, content in (("old", old), ("new", new), ("tabs", tabs)):
        (tmp_path / name).write_text(content)
        found = read(tmp_path, tmp_path / name, "--pronunciations", "--group", "--lowercase")
        assert found == [("a", ["ah0", "ey1"]), ("#hash-mark", ["hh ae1 sh"])]
    assert f"left out 1: 1 x comment ({tmp_path}/old:1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "talk",
    ["hi EOU who EOU me EOU", ["hi", "who", "me"], [{"role": "user", "content": text} for text in ("hi", "who", "me")]],
)
def test_chats_are_lists_of_texts_or_of_turns(tmp_path: Path, talk: object) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1, "messages": talk}) + "\n")
    options = ["--dialogue", "EOU", "--source-field", "messages"]
    assert read(tmp_path, tmp_path / "a.jsonl", *options) == [("hi", ["who"]), ("hi EOU who", ["me"])]


@pytest.mark.parametrize("talk", [None, 3, [1, 2], [{"role": "user"}], {"content": "hi"}])
def test_chats_without_texts_are_invalid(tmp_path: Path, talk: object) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": talk}) + "\n")
    with pytest.raises(DataError, match=r"1 of 1 conversations are invalid .no texts in field 'messages': 1,"):
        read(tmp_path, tmp_path / "a.jsonl", "--dialogue", "EOU", "--source-field", "messages")


def test_carriage_returns_end_lines_only_in_old_mac_files(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "mac").write_bytes(b"one\teins\rtwo\tzwei\r")
    assert read(tmp_path, tmp_path / "mac") == [("one", ["eins"]), ("two", ["zwei"])]
    (tmp_path / "a").write_bytes("one\rand\r\ntwo\u2028\x0c\x85 2\n".encode())
    (tmp_path / "b").write_bytes(b"eins\nzwei\n")
    assert read(tmp_path, tmp_path / "a", tmp_path / "b") == [("one\rand", ["eins"]), ("two\u2028\x0c\x85 2", ["zwei"])]
    assert f"1 x contains a carriage return inside a line: {tmp_path}/a:1" in capsys.readouterr().out


def test_other_kinds_of_files_are_refused_with_the_conversion(tmp_path: Path) -> None:
    for name, action in (("a.tmx", "Convert it to two parallel files"), ("a.zip", "Unpack it")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=action):
            read(tmp_path, tmp_path / name)
    with pytest.raises(DataError, match=rf"file {tmp_path} is not a regular file. Name a file"):
        read(tmp_path, tmp_path)
