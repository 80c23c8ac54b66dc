"""Images are quantized according to the formula; damaged images and those of another size are named."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

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
    """Return a function that prepares a source without held-out splits and opens the dataset."""

    def prepared(*arguments: str | Path) -> Dataset:
        shares = ["--validation-share", "0", "--test-share", "0", "--workers", "1"]
        output = tmp_path / "dataset"
        assert pixels.main([*map(str, arguments), *shares, "--overwrite", "--output", str(output)]) == 0
        return Dataset.open(output, kind="pixels")

    return prepared


def rows(dataset: Dataset, name: str = "train") -> np.ndarray:
    """Return the levels of a split's images."""
    split, about = dataset.splits[name], dataset.manifest["pixels"]
    shape = about["rows"], about["columns"], about["channels"]
    return np.stack([np.frombuffer(split.value("image", row), np.uint8).reshape(shape) for row in range(split.rows)])


def write_idx(path: Path, numbers: np.ndarray) -> Path:
    """Write an IDX file, compressed if its name ends with .gz."""
    data = struct.pack(f">BBBB{numbers.ndim}I", 0, 0, 8, numbers.ndim, *numbers.shape) + numbers.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def digits(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write images of 6 x 4 pixels with labels, with the file names of MNIST."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (40, 6, 4), np.uint8), rng.integers(0, 3, 40).astype(np.uint8)
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
    assert np.abs(found - expected).max() <= 1  # Rows are rounded first, then columns.


def test_sampled_levels_are_white_in_proportion_to_brightness_and_reproducible(
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
    """Write a PNG file, grey or colour."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def test_a_folder_gives_colours_in_order_and_classes_by_subfolder(prepare: Prepare, tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(2), tmp_path / "animals"
    folder.mkdir()
    images = [rng.integers(0, 256, (3, 5, 3), np.uint8) for _ in range(4)]
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
    assert "2 of 6 images are invalid (truncated image: 1, first 4.png; empty file: 1" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    dataset = prepare(tmp_path / "some", "--max-bad-share", "0.5")
    assert dataset.splits["train"].rows == 4
    report = json.loads((dataset.path / "report.json").read_text())
    assert report["bad"]["empty file"]["first"] == ["5.png"]


def test_images_of_several_sizes_are_a_one_line_error_or_scaled(
    prepare: Prepare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, size in enumerate([(4, 4), (4, 4), (4, 6), (8, 8)]):
        save(tmp_path / "sizes" / f"{number}.png", np.full(size, 200, np.uint8))
    command = ["prepare", "pixels", str(tmp_path / "sizes"), "--workers", "1", "--output", str(tmp_path / "no")]
    assert main(command) == 3
    printed = capsys.readouterr().err
    expected = "images of several sizes: 2 of 4x4 (first 0.png), 1 of 4x6 (first 2.png), 1 of 8x8 (first 3.png). "
    assert expected + "Scale them to one size with --size HxW" in printed
    assert printed.count("\n") == 1
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


def test_generated_shapes_are_visible_with_two_levels(prepare: Prepare) -> None:
    dataset = prepare("builtin:30", "--levels", "2")
    assert dataset.manifest["pixels"]["labels"] == ["circle", "square", "triangle"]
    for number, (image, label) in enumerate(figures(30)):
        assert np.array_equal(rows(dataset)[number, ..., 0] == 1, image.any(-1))
        assert dataset.splits["train"].references(number) == [label]


@pytest.mark.usefixtures("digits")
def test_splits_are_divided_by_name_or_given(tmp_path: Path) -> None:
    source, output = str(tmp_path / "train-images-idx3-ubyte"), tmp_path / "divided"
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


@pytest.mark.usefixtures("digits")
def test_several_processes_give_the_result_of_one(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        (["missing"], 3, "source missing does not exist"),
        (["builtin:x"], 3, "builtin:x: expected a number of drawings after the colon, got x"),
        (["builtin:9", "--size", "14"], 2, "--size: expected ROWSxCOLUMNS such as 14x14, got 14"),
        (["builtin:9", "--sample", "1"], 2, "--sample requires --levels=2, got --levels=256"),
        (["builtin:9", "--levels", "3"], 2, "--levels"),
        ([], 2, "expected one source of training images, SOURCE or --train SOURCE, got none"),
        (["broken"], 3, "is not an IDX file"),
        (["short-images"], 3, "is damaged: expected 2 x 3 x 3 bytes, got 17"),
        (["flat"], 3, "expected images of shape N x H x W or N x H x W x 3, got 7"),
        (["a-images-idx3"], 3, "a-labels-idx1 has 5 labels, but a-images-idx3 has 4 images"),
        (["packed.gz"], 3, "cannot be read"),
        (["empty"], 3, "directory empty has no images (.png"),
        (["damaged"], 3, "2 of 2 images are invalid (empty file: 2"),
        (["damaged", "--max-bad-share", "0.99"], 3, "2 of 2 images are invalid (empty file: 2"),
    ],
)
def test_a_mistake_is_a_one_line_error(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("damaged").mkdir()
    for name in ("one.png", "two.png"):
        (Path("damaged") / name).touch()
    Path("broken").write_bytes(b"no images")
    Path("packed.gz").write_bytes(b"not packed")
    whole = write_idx(Path("short-images"), np.zeros((2, 3, 3), np.uint8))
    whole.write_bytes(whole.read_bytes()[:-1])
    write_idx(Path("flat"), np.zeros(7, np.uint8))
    write_idx(Path("a-images-idx3"), np.zeros((4, 2, 2), np.uint8))
    write_idx(Path("a-labels-idx1"), np.zeros(5, np.uint8))
    assert main(["prepare", "pixels", *arguments, "--output", "out"]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.rstrip("\n").count("\n") == 0
    assert not Path("out").exists()


def test_labels_of_a_test_split_are_dropped_if_training_has_none(prepare: Prepare, tmp_path: Path) -> None:
    for folder, shades in (("train", range(20)), ("test/dark", range(3))):
        (tmp_path / folder).mkdir(parents=True)
        for shade in shades:
            Image.new("L", (2, 2), shade).save(tmp_path / folder / f"{shade}.png")
    found = prepare(tmp_path / "train", "--test", tmp_path / "test", "--validation-share", "0.2")
    assert found.manifest["pixels"]["labels"] == []
    assert found.splits["test"].numbers("label").tolist() == [-1, -1, -1]
