"""Images are quantized according to the formula; damaged images and those of another size are named."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep.pixels import command as pixels
from data_prep.sources.shapes import figures
from pipeline.cli import main
from pipeline.dataset.manifest import Dataset
from tests.unit.data_prep.pixels.pictures import Capture, Prepare, rows, save, write_idx


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


def test_damaged_images_are_counted_and_named(prepare: Prepare, tmp_path: Path, capsys: Capture) -> None:
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
    prepare: Prepare, tmp_path: Path, capsys: Capture
) -> None:
    for number, size in enumerate([(4, 4), (4, 4), (4, 6), (8, 8)]):
        save(tmp_path / "sizes" / f"{number}.png", np.full(size, 200, np.uint8))
    whole = ["--validation-share", "0", "--test-share", "0", "--workers", "1"]
    command = ["prepare", "pixels", str(tmp_path / "sizes"), *whole, "--output", str(tmp_path / "no")]
    assert main(command) == 3
    printed = capsys.readouterr().err
    expected = "images of several sizes: 2 of 4x4 (first 0.png), 1 of 4x6 (first 2.png), 1 of 8x8 (first 3.png). "
    assert expected + "Scale them to one size with --size HxW" in printed
    assert printed.count("\n") == 1
    assert rows(prepare(tmp_path / "sizes", "--size", "2x2")).shape == (4, 2, 2, 1)


def test_generated_shapes_are_visible_with_two_levels(prepare: Prepare) -> None:
    dataset = prepare("builtin:30", "--levels", "2")
    assert dataset.manifest["pixels"]["labels"] == ["circle", "square", "triangle"]
    for number, (image, label) in enumerate(figures(30)):
        assert np.array_equal(rows(dataset)[number, ..., 0] == 1, image.any(-1))
        assert dataset.splits["train"].references(number) == [label]


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
        (["short.gz"], 3, "is damaged (Compressed file ended"),
        (["surplus.gz"], 3, "surplus.gz: 4 bytes follow the end of the compressed data"),
        (["header"], 3, "header is damaged: it ends in its header"),
        (["axes"], 3, "is not an IDX file"),
        (["floats"], 3, "floats is not an IDX file of unsigned bytes"),
        (["none-images"], 3, "none-images: expected images, got 0 x 2 x 2 values"),
        (["b-images-idx3"], 3, "b-labels-idx1 has 4 x 2 labels, but b-images-idx3 has 4 images"),
        (["empty"], 3, "directory empty has no images (.jpg"),
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
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("damaged").mkdir()
    for name in ("one.png", "two.png"):
        (Path("damaged") / name).touch()
    Path("broken").write_bytes(b"no images")
    Path("short.gz").write_bytes(gzip.compress(bytes(99))[:-9])
    Path("surplus.gz").write_bytes(gzip.compress(bytes(99)) + b"junk")
    Path("header").write_bytes(struct.pack(">BBBBIH", 0, 0, 8, 3, 1, 1))
    Path("axes").write_bytes(bytes([0, 0, 8, 0, 7]))
    Path("floats").write_bytes(struct.pack(">BBBBIf", 0, 0, 13, 1, 1, 0.5))
    write_idx(Path("none-images"), np.zeros((0, 2, 2), np.uint8))
    write_idx(Path("b-images-idx3"), np.zeros((4, 2, 2), np.uint8))
    write_idx(Path("b-labels-idx1"), np.zeros((4, 2), np.uint8))
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
