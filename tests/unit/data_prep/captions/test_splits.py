"""Images are divided among the splits, or each split has its sources; no image is in two splits."""

import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import DataError
from tests.unit.data_prep.captions.photographs import WHOLE, Capture, expected, prepare, report_of, rows


def test_splits_are_divided_by_image_in_exact_shares(tmp_path: Path) -> None:
    options = ["builtin:200", "--validation-share", 0.1, "--test-share", 0.15, "--tokenizer", "byte", "--workers", 1]
    dataset = prepare(tmp_path / "out", *options)
    assert {name: split.rows for name, split in dataset.splits.items()} == {"train": 150, "validation": 20, "test": 30}
    names = [set(rows(dataset, split)) for split in dataset.splits]
    assert len(set.union(*names)) == 200
    assert prepare(tmp_path / "again", *options[:-2], "--workers", 2).checksum == dataset.checksum


def test_an_image_that_is_held_out_is_not_trained_on(
    images: Path, table: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "test.csv").write_text("image,caption\n3.jpg,a thing\n4.jpg,another\n")
    options = ["--train", table, "--test", tmp_path / "test.csv", "--images", images, *WHOLE]
    dataset = prepare(tmp_path / "out", *options, "--max-bad-share", 0.9)
    assert set(rows(dataset)) == expected().keys() - {"3.jpg", "4.jpg"}
    assert "2 x in another split too: dropped from training" in capsys.readouterr().out


def test_of_a_few_images_one_is_held_out(tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "out", "builtin:4", "--tokenizer", "byte", "--workers", 1)
    assert {name: split.rows for name, split in dataset.splits.items()} == {"train": 2, "validation": 1, "test": 1}


def test_copies_and_images_of_one_colour_are_noted(images: Path, table: Path, tmp_path: Path) -> None:
    (images / "copy.jpg").write_bytes((images / "3.jpg").read_bytes())
    Image.new("RGB", (64, 64), "red").save(images / "flat.png")
    (tmp_path / "test.csv").write_text("image,caption\ncopy.jpg,a thing\nflat.png,a wall\nflat.png,a  wall\n")
    options = ["--train", table, "--test", tmp_path / "test.csv", "--images", images, *WHOLE]
    dataset = prepare(tmp_path / "out", *options)
    assert rows(dataset, "test") == {"copy.jpg": ["a thing"], "flat.png": ["a wall"]}
    assert set(rows(dataset)) == expected().keys() - {"3.jpg"}
    assert report_of(dataset)["noted"] == {
        "in another split too: dropped from training": {"count": 1, "first": ["3.jpg"]},
        "image of one colour": {"count": 1, "first": ["flat.png"]},
        "caption of the same image twice: dropped": {"count": 1, "first": ["flat.png"]},
    }


Row = tuple[int, int, int]  # split, content and spelling of the name of an image
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 3)), min_size=3, max_size=20)


@settings(max_examples=20, deadline=None)
@given(ROWS, st.booleans())
def test_no_image_is_in_two_splits(listed: list[Row], divided: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, sources = Path(name), dict.fromkeys(("train", "validation", "test"), "")
        for at, (split, content, spelling) in enumerate([(0, 6, 0), *listed]):
            image = f"{content}-{at}\u00e9.png"
            Image.new("RGB", (8, 8), (content, 0, 0)).save(folder / image)
            spelled = (image, f"./{image}", f"x/../{image}", image.replace("\u00e9", "e\u0301"))[spelling]
            line = json.dumps({"image": spelled, "caption": "a wall"}) + "\n"
            sources[[*sources][split]] += line
            sources[[*sources][(split + at) % 3]] += line
        for split, text in sources.items():
            (folder / f"{split}.jsonl").write_text(text)
        given_ = [part for split, text in sources.items() if text for part in (f"--{split}", folder / f"{split}.jsonl")]
        one = [folder / f"{split}.jsonl" for split, text in sources.items() if text]
        try:
            dataset = prepare(folder / "out", *(one if divided else given_), "--tokenizer", "byte", "--workers", 1)
        except DataError:  # All images of a split are copies of others.
            return
        found = [{name.partition("-")[0] for name in rows(dataset, split)} for split in dataset.splits]
        assert len(set.union(*found)) == sum(map(len, found))
