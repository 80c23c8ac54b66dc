"""Images are found by their names on every system; captions and names are compared in NFC."""

import json
import os
from pathlib import Path

import pytest

from data_prep.sources.shapes import drawn
from pipeline.errors import DataError
from tests.unit.data_prep.captions.photographs import WHOLE, counts, prepare, report_of, rows, write_tar

LOOSE = [*WHOLE, "--max-bad-share", 0.9]


def test_names_and_captions_are_compared_in_nfc(tmp_path: Path) -> None:
    folder = tmp_path / "cafe\u0301"
    folder.mkdir()
    for number, name in enumerate(["e\u0301.jpg", "\u00e8.jpg"]):
        (folder / name).write_bytes(drawn(number)[0])
    lines = [
        ("caf\u00e9/\u00e9.jpg", "un caf\u00e9"),
        ("cafe\u0301/e\u0300.jpg", "un  cafe\u0301 "),
        ("./caf\u00e9/\u00e9.jpg", "un cafe\u0301"),
    ]
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(f"{image},{text}\n" for image, text in lines))
    dataset = prepare(tmp_path / "out", tmp_path / "captions.csv", "--tokenizer", "character", *WHOLE[:4])
    assert rows(dataset) == {"caf\u00e9/\u00e9.jpg": ["un caf\u00e9"], "caf\u00e9/\u00e8.jpg": ["un caf\u00e9"]}
    assert counts(dataset, "noted") == {"caption of the same image twice: dropped": 1}
    assert "\u0301" not in (dataset.path / "tokenizer.json").read_text()


def test_paths_of_other_systems_are_found_and_strange_ones_are_bad_records(images: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "sub").mkdir()
    (images / "1.jpg").rename(images / "sub" / "1.jpg")
    os.mkfifo(images / "pipe.jpg")
    (images / "._2.jpg").write_bytes(b"made by another system")
    right = {".\\sub\\1.jpg": "sub/1.jpg", "sub/../2.jpg": "2.jpg", str(images / "3.jpg"): "3.jpg"}
    absent = ["4.JPG", "x" * 300 + ".jpg", "pipe.jpg", "sub", "..", "/", "0.jpg/0.jpg"]
    lines = [{"image": name, "caption": name} for name in (*right, *absent, "a\0b.jpg")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = prepare(tmp_path / "out", tmp_path / "a.jsonl", "--images", images, *LOOSE)
    assert rows(dataset) == {found: [name] for name, found in right.items()}
    assert counts(dataset) == {"caption without its image": len(absent), "contains a NUL character": 1}
    assert report_of(dataset)["left_out"] == {
        "hidden": {"count": 1, "first": [str(images / "._2.jpg")]},
        "not a regular file": {"count": 1, "first": [str(images / "pipe.jpg")]},
    }


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_with_a_byte_order_mark_are_read_or_refused(images: Path, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text("image,caption\n0.jpg,a dog\n", encoding=encoding)
    if encoding == "utf-16":
        with pytest.raises(DataError, match=r"a.csv: expected UTF-8, got UTF-16. Convert it: iconv"):
            prepare(tmp_path / "out", tmp_path / "a.csv", "--images", images, *WHOLE)
    else:
        assert rows(prepare(tmp_path / "out", tmp_path / "a.csv", "--images", images, *WHOLE)) == {"0.jpg": ["a dog"]}


def test_names_that_are_not_utf_8_are_shown_with_escapes(images: Path, tmp_path: Path) -> None:
    (images / os.fsdecode(b"0\xe9.jpg")).write_bytes(drawn(0)[0])
    (tmp_path / "a.csv").write_text("image,caption\n0.jpg,a dog\n1.jpg,a cat\n")
    dataset = prepare(tmp_path / "out", tmp_path / "a.csv", "--images", images, *WHOLE)
    assert report_of(dataset)["noted"]["image without captions"]["first"][0].endswith("0\\udce9.jpg")
    name = os.fsdecode(b"caf\xe9")
    tar = write_tar(tmp_path / "a.tar", {f"{name}.jpg": drawn(0)[0], f"{name}.txt": b"a dog"})
    assert rows(prepare(tmp_path / "from-tar", tar, *WHOLE)) == {"a.tar:caf\\udce9": ["a dog"]}
