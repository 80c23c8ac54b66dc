"""Tables and records are read exactly as written, or each wrong row is rejected with its number."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.dataset.codecs.table import read_records, read_table
from pipeline.errors import DataError

Rejected = list[tuple[str, str]]


def records(path: Path, *, header: bool = True) -> tuple[list[tuple[int, dict[str, object]]], Rejected]:
    rejected: Rejected = []
    found = list(read_records(path, lambda name, reason: rejected.append((name, reason)), header=header))
    return found, rejected


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_values_are_text_as_written(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'id,name,x\n007,"a, ""b""",1.50\n7, NA ,\n')
    assert records(path) == (
        [(2, {"id": "007", "name": 'a, "b"', "x": "1.50"}), (3, {"id": "7", "name": " NA ", "x": ""})],
        [],
    )


def test_rows_with_another_number_of_fields_are_rejected_by_their_number(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "a,b\n1,2\n3\n4,5,6\n\n7,8\n9,\n,,,\n")
    found, rejected = records(path)
    assert found == [(2, {"a": "1", "b": "2"}), (6, {"a": "7", "b": "8"}), (7, {"a": "9", "b": ""})]
    reason = "another number of fields than the header"
    assert rejected == [(f"{path}:3", reason), (f"{path}:4", reason), (f"{path}:8", reason)]


def test_numbers_of_rows_hold_over_several_blocks(tmp_path: Path) -> None:
    lines = [f"{at},{'x' * 500}" if at % 1000 else f"{at}" for at in range(1, 8001)]
    found, rejected = records(written(tmp_path / "a.csv", "n,x\n" + "\n".join(lines) + "\n"))
    assert [name.rpartition(":")[2] for name, _ in rejected] == [str(1000 * at + 1) for at in range(1, 9)]
    assert all(number == int(str(record["n"])) + 1 for number, record in found)
    assert len(found) == 7992


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", 'a\tb\n"x\ty\n"5"" disk\tz"\n')
    assert records(path) == ([(2, {"a": '"x', "b": "y"}), (3, {"a": '"5"" disk', "b": 'z"'})], [])


@pytest.mark.parametrize("text", ['a,b\n1,"x\n2,y\n', 'a,b\n1,"x\n2,y\n3,"z\n4,w\n'])
def test_an_unbalanced_quotation_mark_in_csv_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="unbalanced quotation marks"):
        records(written(tmp_path / "a.csv", text))


@pytest.mark.parametrize("name", ["a.csv", "A.CSV", "a.txt", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("delimiter", ["\t", ";", ",", "|"])
def test_the_delimiter_is_that_of_the_header(tmp_path: Path, name: str, delimiter: str) -> None:
    content = f"\ufeffstamp{delimiter}x\r\n1{delimiter}2\r\n".encode()
    path = written(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    assert records(path) == ([(2, {"stamp": "1", "x": "2"})], [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("date;load, kW\n1;5,3\n2;6,1\n", {"date": "1", "load, kW": "5,3"}),
        ("date;load, kW;a, b\n1;5;6\n", {"date": "1", "load, kW": "5", "a, b": "6"}),
        ("date;load, kW\n1;5.3\n\n2;6,1\n", {"date": "1", "load, kW": "5.3"}),
        ("date\tload, kW\n1\t5,3\n", {"date": "1", "load, kW": "5,3"}),
        ("date,load; kW\n1,5\n2,6\n", {"date": "1", "load; kW": "5"}),
        ("title,a|b\nx,y|z\n", {"title": "x", "a|b": "y|z"}),
        ('a,b;c\n"1;2",3\n', {"a": "1;2", "b;c": "3"}),
        ("a| b\n1| 2\n", {"a": "1", "b": " 2"}),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_the_delimiter_divides_all_rows_equally(tmp_path: Path, name: str, text: str, expected: dict[str, str]) -> None:
    assert records(written(tmp_path / name, text))[0][0][1] == expected


def test_a_table_without_header_has_numbered_columns(tmp_path: Path) -> None:
    assert records(written(tmp_path / "a.csv", "1,2\n3,4\n"), header=False) == (
        [(1, {"1": "1", "2": "2"}), (2, {"1": "3", "2": "4"})],
        [],
    )


def test_rows_that_are_not_utf8_or_contain_nul_are_rejected(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"a,b\n1,\xff\n2,\xc3\xa9\n3,x\x00y\n")
    assert records(path) == (
        [(3, {"a": "2", "b": "é"})],
        [(f"{path}:2", "not UTF-8"), (f"{path}:4", "contains a NUL character")],
    )


def test_rows_that_are_not_utf8_and_have_other_fields_are_rejected_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = b"a,b\n" + "é,2\n".encode() * 40_000 + b"\xff\xc3,1,2\n3,4\n5,\xff\n6,\xc3"
    path = written(tmp_path / "a.csv", content)
    rows, rejected = records(path)
    assert (len(rows), rows[-1]) == (40_001, (40_003, {"a": "3", "b": "4"}))
    reasons = {40_002: "another number of fields than the header", 40_004: "not UTF-8", 40_005: "not UTF-8"}
    assert rejected == [(f"{path}:{row}", reason) for row, reason in reasons.items()]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_other_encodings_are_refused_with_the_command_that_converts_them(
    tmp_path: Path, encoding: str, name: str
) -> None:
    text = "a,b\none,two\n" if name == "a.csv" else '{"a": "one"}\n'
    expected = encoding.upper().removesuffix("-LE").removesuffix("-BE")
    with pytest.raises(DataError, match=rf"expected UTF-8, got {expected}.*iconv -f {expected}"):
        records(written(tmp_path / name, text.encode(encoding)))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "manifest.txt"])
def test_json_lines_are_recognised_by_their_content(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, '\ufeff{"a": 1}\n\n[2]\n{"a": \n{"a": "\\ud800"}\n{"a": "é"}\n')
    assert records(path) == (
        [(1, {"a": 1}), (6, {"a": "é"})],
        [
            (f"{path}:3", "not a JSON object"),
            (f"{path}:4", "invalid JSON"),
            (f"{path}:5", "not UTF-8"),
        ],
    )


def test_a_json_list_and_parquet_give_records(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    listed = written(tmp_path / "a.json", json.dumps(rows, indent=1))
    inner = written(tmp_path / "b.json", json.dumps({"version": 1, "data": [*rows, 3]}, indent=1))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    assert records(listed) == ([*enumerate(rows, 1)], [])
    assert records(inner) == ([*enumerate(rows, 1)], [(f"{inner}:3", "not a JSON object")])
    assert records(tmp_path / "c.parquet") == ([*enumerate(rows, 1)], [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"a,b,a\n1,2,3\n", "has 'a' twice"),
        ("a.csv", b"\xff,b\n1,2\n", "header is not UTF-8"),
        ("a.json", b'{\n"a": 1', "not valid JSON"),
        ("a.json", b'{\n"a": 1}', "expected a list of JSON objects"),
        ("a.parquet", b"PAR1 this is not a table", "is not a table"),
        ("a.csv.gz", b"\x1f\x8b not gzip", "damaged"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_table_is_one_error(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        written(path, content)
    with pytest.raises(DataError, match=message):
        records(path)


def test_a_table_has_the_rows_of_all_files_and_refuses_wrong_rows(tmp_path: Path) -> None:
    one, two = written(tmp_path / "a.csv", "a,b\n01,2\n"), written(tmp_path / "b.csv", "a,b\n3,4\n5\n")
    rejected: Rejected = []
    table = read_table([one, two], lambda name, reason: rejected.append((name, reason)))
    assert table.to_pydict() == {"a": ["01", "3"], "b": ["2", "4"]}
    assert rejected == [(f"{two}:3", "another number of fields than the header")]
    with pytest.raises(DataError, match=r"b.csv:3: another number of fields than the header"):
        read_table([one, two])


def test_an_empty_line_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "x\n1\n\n3\n\n\n")
    assert read_table([path]).to_pydict() == {"x": ["1", "", "3"]}


def test_deep_nesting_is_invalid_json(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": ' + "[" * 100_000)
    assert records(path) == ([], [(f"{path}:1", "invalid JSON")])


def test_a_lone_carriage_return_among_the_first_rows_ends_a_row(tmp_path: Path) -> None:
    found, _ = records(written(tmp_path / "a.csv", 'a,b\n1,2\r3,"c\nd"\n'))
    assert [record for _, record in found] == [{"a": "1", "b": "2"}, {"a": "3", "b": "c\nd"}]
