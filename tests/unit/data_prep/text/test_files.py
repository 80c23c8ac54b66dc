"""Files as they occur in practice are read right, or refused with one line that names the action."""

import gzip
import io
import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from data_prep.text import command as text
from pipeline.dataset.manifest import Dataset
from pipeline.errors import DataError

LINES = [f"line {number} of some text" for number in range(40)]
ALL = ["--validation-share", 0, "--test-share", 0]
Capture = pytest.CaptureFixture[str]


def prepare(output: Path, *arguments: object) -> Dataset:
    """Prepare a dataset of bytes in this process and open it."""
    options = ["--tokenizer", "byte", "--workers", "1", "--output", str(output)]
    assert text.main([*map(str, arguments), *options]) == 0
    return Dataset.open(output)


def documents(dataset: Dataset, split: str = "train") -> list[str]:
    part = dataset.splits[split]
    edges = [*part.starts(0, part.tokens).tolist(), part.tokens]
    decode = Tokenizer.from_file(str(dataset.target.file)).decode
    return [decode(part.read(*ends).tolist(), skip_special_tokens=True) for ends in pairwise(edges)]


def report(dataset: Dataset) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads((dataset.path / "report.json").read_text())
    return found


@pytest.mark.parametrize("documents_are", ["file", "line", "paragraph"])
def test_a_byte_order_mark_is_not_text(tmp_path: Path, documents_are: str) -> None:
    (tmp_path / "a.txt").write_text("one two", encoding="utf-8-sig")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("three".encode("utf-8-sig")))
    (tmp_path / "c.jsonl").write_text('{"text": "four"}\n', encoding="utf-8-sig")
    dataset = prepare(tmp_path / "out", tmp_path, "--documents", documents_are, *ALL)
    assert documents(dataset) == ["one two", "three", "four"]


def test_a_byte_order_mark_of_standard_input_is_not_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("one\ntwo\n".encode("utf-8-sig"))))
    assert documents(prepare(tmp_path / "out", "-", "--documents", "line", *ALL)) == ["one", "two"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("one\ntwo\n".encode("utf-16"))))
    with pytest.raises(
        DataError, match=r"standard input: expected UTF-8, got UTF-16. Pipe it through: iconv -f UTF-16"
    ):
        prepare(tmp_path / "wrong", "-")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("documents_are", ["file", "line", "paragraph"])
def test_other_encodings_are_refused_with_the_conversion(tmp_path: Path, encoding: str, documents_are: str) -> None:
    (tmp_path / "a.txt").write_bytes("\n".join(LINES).encode(encoding))
    with pytest.raises(DataError, match=r"a\.txt: expected UTF-8, got UTF-(16|32).*iconv -f UTF-(16|32)"):
        prepare(tmp_path / "out", tmp_path / "a.txt", "--documents", documents_are)


def test_lines_end_at_line_ends_only(tmp_path: Path) -> None:
    inside = "form\ffeed \x1c\x1d\x1e \x85 \u2028 \u2029 \v"
    (tmp_path / "a.txt").write_bytes(f"{inside}\nunix\r\nwindows\rmac\r\rblank\n".encode())
    dataset = prepare(tmp_path / "out", tmp_path / "a.txt", "--documents", "line", *ALL)
    assert documents(dataset) == [inside, "unix", "windows", "mac", "blank"]
    assert dataset.splits["train"].bytes == (tmp_path / "a.txt").stat().st_size - 1  # without the blank line


def test_paragraphs_of_old_mac_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\r\rthree\r")
    dataset = prepare(tmp_path / "out", tmp_path / "a.txt", "--documents", "paragraph", *ALL)
    assert documents(dataset) == ["one\rtwo", "three"]
    (tmp_path / "b.txt").write_bytes(b"one\rtwo\r")
    noted = report(prepare(tmp_path / "file", tmp_path / "b.txt", *ALL))["noted"]
    assert noted["contains a carriage return inside a line"] == {"count": 1, "first": [f"{tmp_path / 'b.txt'}"]}


def test_a_document_with_a_nul_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\0d\n")
    (tmp_path / "b.jsonl").write_text('{"text": "b\\u0000d"}\n{"text": "fine"}\n')
    with pytest.raises(DataError, match=r"2 of 4 documents are invalid .contains a NUL character: 2, first .*a.txt:2"):
        prepare(tmp_path / "out", tmp_path, "--documents", "line", *ALL)
    with pytest.raises(DataError, match=r"1 of 1 documents are invalid .contains a NUL character: 1, first .*a.txt"):
        prepare(tmp_path / "out", tmp_path / "a.txt", *ALL)


def test_characters_of_a_wrong_encoding_are_noted(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.txt").write_text("fine\nCafÃ©\nCaf\ufffd\n", encoding="utf-8")
    prepare(tmp_path / "out", tmp_path / "a.txt", "--documents", "line", *ALL)
    printed = capsys.readouterr().out
    assert (
        f"1 x contains UTF-8 that was read as Latin-1 or Windows-1252, such as Ã© for é: {tmp_path}/a.txt:2" in printed
    )
    assert f"1 x contains the replacement character U+FFFD of an earlier conversion: {tmp_path}/a.txt:3" in printed


def test_bytes_after_a_compressed_file_are_counted(tmp_path: Path) -> None:
    packed = gzip.compress(b"some text")
    (tmp_path / "a.txt.gz").write_bytes(packed + b"<html>")
    expected = rf"a\.txt\.gz: 6 bytes follow the end of the compressed data. Remove them: head -c {len(packed)} "
    with pytest.raises(DataError, match=expected):
        prepare(tmp_path / "out", tmp_path / "a.txt.gz")


def test_only_the_visible_files_of_a_directory_are_read(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "corpus"
    for name in ("A.TXT", "b.md", "c.txt", ".ipynb_checkpoints/c.txt", "._d.txt", "e.pdf"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(name)
    os.mkfifo(folder / "pipe.txt")
    (folder / "loop").symlink_to(folder)
    assert documents(prepare(tmp_path / "out", folder, *ALL)) == ["A.TXT", "b.md", "c.txt"]
    printed = capsys.readouterr().out
    assert "left out 5: 2 x hidden" in printed
    for reason in ("already read through another link", "not a regular file", "suffix .pdf"):
        assert f"1 x {reason} (" in printed


def test_folders_of_splits_are_the_splits(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "corpus"
    for name in ("train/a.txt", "dev/b.txt", "test/c.txt", "readme.txt"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(name)
    dataset = prepare(tmp_path / "out", folder)
    assert {name: documents(dataset, name) for name in dataset.splits} == {
        "train": ["train/a.txt"], "validation": ["dev/b.txt"], "test": ["test/c.txt"]
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"its folders are read as the splits: {folder} (train, dev, test)" in printed
    assert f"left out 1: 1 x outside of the folders of the splits ({folder / 'readme.txt'})" in printed


def test_files_of_splits_are_the_splits(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("wiki.train.txt", "wiki.valid.txt", "wiki.test.txt", ".train.txt"):
        (folder / name).write_text(name)
    dataset = prepare(tmp_path / "out", folder)
    assert {name: documents(dataset, name) for name in dataset.splits} == {
        "train": ["wiki.train.txt"], "validation": ["wiki.valid.txt"], "test": ["wiki.test.txt"]
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"contain: {folder} (1 of train, 1 of validation, 1 of test)" in printed
    assert "left out 1: 1 x hidden" in printed


def test_the_tail_of_few_documents_is_held_out(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.txt").write_text("0123456789" * 10)
    dataset = prepare(tmp_path / "out", tmp_path / "a.txt", "--validation-share", 0.2, "--test-share", 0.1)
    lengths = {name: len(documents(dataset, name)[0]) for name in dataset.splits}
    assert lengths == {"train": 70, "validation": 20, "test": 10}
    assert f"as with --cut tail: {tmp_path / 'a.txt'}" in capsys.readouterr().out
    (tmp_path / "b.txt").write_text("".join(f"document {number}\n" for number in range(400)))
    prepare(tmp_path / "many", tmp_path / "b.txt", "--documents", "line")
    assert "--cut tail" not in capsys.readouterr().out
