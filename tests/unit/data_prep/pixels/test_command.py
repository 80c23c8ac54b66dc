"""Images become levels as a formula says; what is damaged or of another size is named."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.pixels import command as pixels
from data_prep.sources.shapes import figures
from pipeline.cli import main
from pipeline.dataset.manifest import Dataset

Prepare = Callable[..., Dataset]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepares a source without held-out splits, and opens what came of it."""

    def prepared(*arguments: str | Path) -> Dataset:
        shares = ["--validation-share", "0", "--test-share", "0", "--workers", "1"]
        output = tmp_path / "dataset"
        assert pixels.main([*map(str, arguments), *shares, "--overwrite", "--output", str(output)]) == 0
        return Dataset.open(output, kind="pixels")

    return prepared


def rows(dataset: Dataset, name: str = "train") -> np.ndarray:
    """The levels of a split's images."""
    split, about = dataset.splits[name], dataset.manifest["pixels"]
    shape = about["rows"], about["columns"], about["channels"]
    return np.stack([np.frombuffer(split.value("image", row), np.uint8).reshape(shape) for row in range(split.rows)])


def write_idx(path: Path, numbers: np.ndarray) -> Path:
    """An IDX file, packed where its name says so."""
    data = struct.pack(f">BBBB{numbers.ndim}I", 0, 0, 8, numbers.ndim, *numbers.shape) + numbers.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def digits(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images of 6 x 4 pixels with labels, as MNIST's files are called."""
    chance = np.random.default_rng(1)
    images, labels = chance.integers(0, 256, (40, 6, 4), np.uint8), chance.integers(0, 3, 40).astype(np.uint8)
    for suffix in ("", ".gz"):
        write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"train-labels-idx1-ubyte{suffix}", labels)
    return images, labels


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("levels", [2, 16, 256])
def test_idx_files_become_levels_and_labels(
    digits: tuple[np.ndarray, np.ndarray], prepare: Prepare, tmp_path: Path, suffix: str, levels: int
) -> None:
    images, labels = digits
    dataset = prepare(tmp_path / f"train-images-idx3-ubyte{suffix}", "--levels", str(levels))
    expected = np.floor(images / 256 * levels)[..., None]
    assert np.array_equal(rows(dataset), expected)
    split, about = dataset.splits["train"], dataset.manifest["pixels"]
    assert [about["labels"][label] for label in split.numbers("label")] == [str(label) for label in labels]
    assert split.references(7) == [str(labels[7])]
    assert (about["rows"], about["columns"], about["channels"], about["levels"]) == (6, 4, 1, levels)
    assert split.tokens == split.bytes == images.size


def test_an_idx_file_of_four_axes_is_in_colour(prepare: Prepare, tmp_path: Path) -> None:
    images = np.random.default_rng(4).integers(0, 256, (5, 3, 2, 3), np.uint8)
    write_idx(tmp_path / "images-idx4", images)
    write_idx(tmp_path / "labels-idx1", np.arange(5, dtype=np.uint8))
    dataset = prepare(tmp_path / "images-idx4", "--colour")
    assert np.array_equal(rows(dataset), images)
    assert dataset.manifest["pixels"]["labels"] == list("01234")


def test_a_smaller_image_holds_means(digits: tuple[np.ndarray, np.ndarray], prepare: Prepare, tmp_path: Path) -> None:
    found = rows(prepare(tmp_path / "train-images-idx3-ubyte", "--size", "3x2"))[..., 0]
    expected = digits[0].reshape(40, 3, 2, 2, 2).mean((2, 4))
    assert np.abs(found - expected).max() <= 1  # rows are rounded first, then columns


def test_drawn_levels_are_white_as_often_as_they_are_bright_and_the_same_again(
    prepare: Prepare, tmp_path: Path
) -> None:
    bright = np.array([0, 64, 128, 255], np.uint8)
    source = write_idx(tmp_path / "images", np.tile(bright, (2000, 3, 1)))
    found = rows(prepare(source, "--levels", "2", "--sample", "1"))
    assert np.abs(found.mean((0, 1, 3)) - bright / 255).max() < 0.03  # three deviations
    assert found[:, :, 0].max() == 0
    assert found[:, :, 3].min() == 1
    assert np.array_equal(found, rows(prepare(source, "--levels", "2", "--sample", "1")))
    assert not np.array_equal(found, rows(prepare(source, "--levels", "2", "--sample", "2")))


def save(path: Path, values: np.ndarray) -> np.ndarray:
    """A PNG file, of grey or of colour."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def test_a_folder_gives_colours_in_order_and_classes_by_subfolder(prepare: Prepare, tmp_path: Path) -> None:
    chance, folder = np.random.default_rng(2), tmp_path / "animals"
    folder.mkdir()
    images = [chance.integers(0, 256, (3, 5, 3), np.uint8) for _ in range(4)]
    for number, image in enumerate(images):
        save(folder / ("cat" if number < 2 else "dog") / f"{number}.png", image)
    dataset = prepare(folder, "--colour")
    assert np.array_equal(rows(dataset), np.stack(images))
    split = dataset.splits["train"]
    assert split.value("image", 0)[:6] == images[0][0, :2].tobytes()  # red, green, blue of a pixel, then the next
    assert dataset.manifest["pixels"]["labels"] == ["cat", "dog"]
    assert split.numbers("label").tolist() == [0, 0, 1, 1]
    assert [split.value("name", row) for row in range(2)] == ["cat/0.png", "cat/1.png"]
    grey = rows(prepare(folder))
    assert np.abs(grey[..., 0] - np.stack(images) @ [0.299, 0.587, 0.114]).max() < 1  # ITU-R BT.601


def test_a_folder_without_subfolders_has_no_labels(prepare: Prepare, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "flat" / f"{number}.png", np.full((2, 2), number, np.uint8))
    (tmp_path / "flat" / "._0.png").write_bytes(b"what other systems leave behind")
    dataset = prepare(tmp_path / "flat")
    assert dataset.manifest["pixels"]["labels"] == []
    assert dataset.splits["train"].numbers("label").tolist() == [-1] * 3


def test_damaged_images_are_counted_and_named(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        save(tmp_path / "some" / f"{number}.png", np.full((30, 30), 60 * number, np.uint8))
    noise = np.random.default_rng(3).integers(0, 256, (30, 30), np.uint8)
    save(tmp_path / "some" / "4.png", noise)
    (tmp_path / "some" / "4.png").write_bytes((tmp_path / "some" / "4.png").read_bytes()[:300])
    (tmp_path / "some" / "5.png").write_bytes(b"")
    command = ["prepare", "pixels", str(tmp_path / "some"), "--workers", "1", "--output", str(tmp_path / "no")]
    assert main(command) == 3
    assert "2 of 6 records are bad (truncated image: 1, first 4.png; empty file: 1" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    dataset = prepare(tmp_path / "some", "--max-bad-share", "0.5")
    assert dataset.splits["train"].rows == 4
    report = json.loads((dataset.path / "report.json").read_text())
    assert report["bad"]["empty file"]["first"] == ["5.png"]


def test_images_of_several_sizes_are_one_line_or_scaled(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, size in enumerate([(4, 4), (4, 4), (4, 6), (8, 8)]):
        save(tmp_path / "sizes" / f"{number}.png", np.full(size, 200, np.uint8))
    command = ["prepare", "pixels", str(tmp_path / "sizes"), "--workers", "1", "--output", str(tmp_path / "no")]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "images of several sizes: 2 of 4x4 (first 0.png), 1 of 4x6 (first 2.png), 1 of 8x8 (first 3.png); " in said
    assert "give --size HxW" in said
    assert said.count("\n") == 1
    assert rows(prepare(tmp_path / "sizes", "--size", "2x2")).shape == (4, 2, 2, 1)


def test_a_hub_data_set_is_read_with_the_names_of_its_classes(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    image = save(tmp_path / "one.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    features = datasets.Features(picture=datasets.Image(), digit=datasets.ClassLabel(names=["zero", "one"]))
    columns = {"picture": [str(tmp_path / "one.png")] * 2, "digit": [1, 0]}
    made = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made)
    dataset = prepare("hub:digits", "--image-field", "picture", "--label-field", "digit")
    assert np.array_equal(rows(dataset)[0, ..., 0], image)
    labels = dataset.manifest["pixels"]["labels"]
    assert [labels[label] for label in dataset.splits["train"].numbers("label")] == ["one", "zero"]


def test_shapes_are_drawn_on_the_spot_and_seen_in_two_levels(prepare: Prepare) -> None:
    dataset = prepare("builtin:30", "--levels", "2")
    assert dataset.manifest["pixels"]["labels"] == ["circle", "square", "triangle"]
    for number, (image, label) in enumerate(figures(30)):
        assert np.array_equal(rows(dataset)[number, ..., 0] == 1, image.any(-1))
        assert dataset.splits["train"].references(number) == [label]


def test_splits_are_cut_by_name_or_given(digits: Any, tmp_path: Path) -> None:
    source, output = str(tmp_path / "train-images-idx3-ubyte"), tmp_path / "cut"
    shares = ["--validation-share", "0.3", "--test-share", "0.2"]
    assert pixels.main([source, *shares, "--workers", "1", "--output", str(output)]) == 0
    splits = Dataset.open(output).splits
    names = [split.value("name", row) for split in splits.values() for row in range(split.rows)]
    assert sorted(names) == sorted(f"train-images-idx3-ubyte:{number}" for number in range(40))
    assert min(split.rows for split in splits.values()) > 3
    given = ["--train", source, "--validation", source, "--test", source, "--workers", "1"]
    assert pixels.main([*given, "--output", str(tmp_path / "given")]) == 0
    assert {name: split.rows for name, split in Dataset.open(tmp_path / "given").splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 40
    )


def test_several_processes_find_what_one_does(
    digits: Any, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, drawn = tmp_path / "train-images-idx3-ubyte", ("--levels", "2", "--sample", "3")
    alone = rows(prepare(source, *drawn))
    monkeypatch.setattr(pixels, "BATCH", 7)
    monkeypatch.setattr(pixels, "EACH", 10)
    shares = ["--validation-share", "0", "--test-share", "0", "--workers", "2"]
    assert pixels.main([str(source), *drawn, *shares, "--output", str(tmp_path / "two")]) == 0
    assert np.array_equal(rows(Dataset.open(tmp_path / "two")), alone)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing"], 3, "there is no source missing"),
        (["builtin:x"], 3, "as in builtin:500"),
        (["builtin:9", "--size", "14"], 2, "write rows x columns, as 14x14"),
        (["builtin:9", "--sample", "1"], 2, "add --levels 2"),
        (["builtin:9", "--levels", "3"], 2, "--levels"),
        ([], 2, "name one source"),
        (["broken"], 3, "is no IDX file"),
        (["short-images"], 3, "is damaged: 2 x 3 x 3 bytes are announced, 17 are there"),
        (["flat"], 3, "no images (N x H x W"),
        (["a-images-idx3"], 3, "holds 5 labels for the 4 images"),
        (["packed.gz"], 3, "cannot be read"),
        (["empty"], 3, "no file below empty ends in .png"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("broken").write_bytes(b"no images")
    Path("packed.gz").write_bytes(b"not packed")
    whole = write_idx(Path("short-images"), np.zeros((2, 3, 3), np.uint8))
    whole.write_bytes(whole.read_bytes()[:-1])
    write_idx(Path("flat"), np.zeros(7, np.uint8))
    write_idx(Path("a-images-idx3"), np.zeros((4, 2, 2), np.uint8))
    write_idx(Path("a-labels-idx1"), np.zeros(5, np.uint8))
    assert main(["prepare", "pixels", *arguments, "--output", "out"]) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.rstrip("\n").count("\n") == 0
    assert not Path("out").exists()


def test_labels_of_a_test_split_that_training_lacks_are_left_out(prepare: Prepare, tmp_path: Path) -> None:
    for folder, shades in (("train", range(20)), ("test/dark", range(3))):
        (tmp_path / folder).mkdir(parents=True)
        for shade in shades:
            Image.new("L", (2, 2), shade).save(tmp_path / folder / f"{shade}.png")
    found = prepare(tmp_path / "train", "--test", tmp_path / "test", "--validation-share", "0.2")
    assert found.manifest["pixels"]["labels"] == []
    assert found.splits["test"].numbers("label").tolist() == [-1, -1, -1]
