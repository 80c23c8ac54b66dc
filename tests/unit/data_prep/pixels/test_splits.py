"""The images of a dataset are divided, or each split has its source; no image is in two splits."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.pixels import command as pixels
from data_prep.pixels.sources import read_idx
from pipeline.cli import main
from pipeline.dataset.manifest import Dataset
from tests.unit.data_prep.pixels.pictures import Capture, Prepare, rows, save, write_idx


@pytest.mark.usefixtures("digits")
def test_splits_are_divided_by_name_or_given(tmp_path: Path) -> None:
    source, output = str(tmp_path / "train-images-idx3-ubyte"), tmp_path / "divided"
    shares = ["--validation-share", "0.3", "--test-share", "0.2"]
    assert pixels.main([source, *shares, "--workers", "1", "--output", str(output)]) == 0
    splits = Dataset.open(output).splits
    names = [split.value("name", row) for split in splits.values() for row in range(split.rows)]
    assert sorted(names) == sorted(f"train-images-idx3-ubyte:{number}" for number in range(40))
    assert min(split.rows for split in splits.values()) > 3


@pytest.mark.usefixtures("digits")
def test_images_of_a_test_file_are_dropped_from_training(prepare: Prepare, tmp_path: Path, capsys: Capture) -> None:
    train, test = tmp_path / "train-images-idx3-ubyte", tmp_path / "t10k-images-idx3-ubyte"
    write_idx(test, np.concatenate([read_idx(train)[5:8], np.full((1, 6, 4), 9, np.uint8)]))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", read_idx(tmp_path / "train-labels-idx1-ubyte")[5:9])
    dataset = prepare("--train", train, "--test", test)
    assert {name: split.rows for name, split in dataset.splits.items()} == {"train": 37, "test": 4}
    printed = capsys.readouterr().out
    dropped = ", ".join(f"train-images-idx3-ubyte:{number}" for number in (5, 6, 7))
    assert f"3 x in another split too: dropped from training: {dropped}\n" in printed
    assert "1 x image of one colour: t10k-images-idx3-ubyte:3\n" in printed


def test_folders_of_splits_are_not_classes(prepare: Prepare, tmp_path: Path, capsys: Capture) -> None:
    parts = {"Train": 6, "val": 2, "test": 3}
    for at, (part, count) in enumerate(parts.items()):
        for number in range(count):
            values = np.array([[at, number]], np.uint8)
            save(tmp_path / "parts" / part / ("cat" if number % 2 else "dog") / f"{number}.png", values)
    dataset = prepare(tmp_path / "parts")
    assert dataset.manifest["pixels"]["labels"] == ["cat", "dog"]
    assert {name: split.rows for name, split in dataset.splits.items()} == {"train": 6, "validation": 2, "test": 3}
    assert rows(dataset, "validation")[..., 0].tolist() == [[[1, 1]], [[1, 0]]]
    assert "name of a split" not in capsys.readouterr().out
    (tmp_path / "parts" / "Train").rename(tmp_path / "parts" / "cat")
    assert prepare(tmp_path / "parts").manifest["pixels"]["labels"] == ["cat", "test", "val"]
    assert "2 x class with the name of a split: test, val\n" in capsys.readouterr().out


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=4, max_size=25), st.booleans())
def test_no_image_is_in_two_splits(contents: list[int], by_folders: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        for number, content in enumerate(contents):
            part = ("train", "test", "validation")[min(number, 3) % 3] if by_folders else "one"
            (folder / part).mkdir(parents=True, exist_ok=True)
            Image.new("L", (2, 1), 30 * content).save(folder / part / f"{number}.png")
        arguments = ["prepare", "pixels", str(folder), "--validation-share", "0.3", "--test-share", "0.3"]
        code = main([*arguments, "--workers", "1", "--output", f"{name}/out"])
        if code == 3:
            return  # A split has only images of others.
        assert code == 0
        dataset = Dataset.open(Path(name, "out"))
        found = [set(rows(dataset, split).ravel()) for split in dataset.splits]
        assert len(set.union(*found)) == sum(map(len, found)) == len(set(contents))


def test_of_a_few_images_one_is_held_out(tmp_path: Path) -> None:
    for shade in range(4):
        save(tmp_path / "shades" / f"{shade}.png", np.array([[shade, 9]], np.uint8))
    assert pixels.main([str(tmp_path / "shades"), "--workers", "1", "--output", str(tmp_path / "out")]) == 0
    rows_of = {name: split.rows for name, split in Dataset.open(tmp_path / "out").splits.items()}
    assert min(rows_of.values()) >= 1
    assert sum(rows_of.values()) == 4


def test_labels_of_a_test_split_are_dropped_if_training_has_none(prepare: Prepare, tmp_path: Path) -> None:
    for folder, shades in (("train", range(20)), ("test/dark", range(3))):
        (tmp_path / folder).mkdir(parents=True)
        for shade in shades:
            Image.new("L", (2, 2), shade).save(tmp_path / folder / f"{shade}.png")
    found = prepare(tmp_path / "train", "--test", tmp_path / "test", "--validation-share", "0.2")
    assert found.manifest["pixels"]["labels"] == []
    assert found.splits["test"].numbers("label").tolist() == [-1, -1, -1]
