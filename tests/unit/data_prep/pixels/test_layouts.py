"""Directories of images, IDX files and Hub data sets give the same images and classes on every system."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.data_prep.pixels.pictures import Capture, Prepare, rows, save


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


def test_files_that_are_not_images_of_a_class_are_left_out(prepare: Prepare, tmp_path: Path, capsys: Capture) -> None:
    folder, names = tmp_path / "animals", ("cafe\u0301/a.PNG", "caf\u00e9/b.tif", "dog/c.jpe\u0301.png", "dog/d.pgm")
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 1), 50 * number).save(folder / name)
        (folder / name).with_name(f"._{number}.png").write_bytes(b"made by another system")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "notes.md").touch()
    os.mkfifo(folder / "dog" / "pipe.png")
    (folder / "linked").symlink_to(folder / "dog")
    (folder / "dog" / "broken.png").symlink_to("nothing")
    dataset = prepare(folder)
    assert dataset.manifest["pixels"]["labels"] == ["caf\u00e9", "dog"]
    names = [dataset.splits["train"].value("name", row) for row in range(4)]
    assert sorted(names) == ["caf\u00e9/a.PNG", "caf\u00e9/b.tif", "dog/c.jp\u00e9.png", "dog/d.pgm"]
    left_out = json.loads((dataset.path / "report.json").read_text())["left_out"]
    assert {reason: entry["count"] for reason, entry in left_out.items()} == {
        "hidden": 5, "suffix .md": 1, "not a regular file": 1, "broken link": 1, "already read through another link": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "value"), [("L", 200), ("1", 1), ("P", 7), ("I;16", 200 * 256 + 9), ("RGBA", 200)])
def test_every_colour_mode_becomes_grey_or_coloured_levels(
    prepare: Prepare, tmp_path: Path, mode: str, value: int
) -> None:
    image = Image.new(mode, (2, 1), (*[value] * 3, 255) if mode == "RGBA" else value)
    if mode == "P":
        image.putpalette([0, 0, 0] * 7 + [200, 200, 200])
    (tmp_path / "some").mkdir()
    image.save(tmp_path / "some" / "image.png")
    expected = 255 if mode == "1" else 200
    assert rows(prepare(tmp_path / "some")).tolist() == [[[[expected]] * 2]]
    assert rows(prepare(tmp_path / "some", "--colour")).tolist() == [[[[expected] * 3] * 2]]


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


def test_a_label_of_minus_one_is_no_label(prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    save(tmp_path / "one.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["zero", "one"]))
    columns = {"image": [str(tmp_path / "one.png")] * 3, "label": [0, -1, 1]}
    made = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: made)
    dataset = prepare("hub:digits", "--max-bad-share", "0.5")
    report = json.loads((dataset.path / "report.json").read_text())
    assert report["bad"] == {"no label": {"count": 1, "first": ["hub:digits:1"]}}
    assert dataset.splits["train"].numbers("label").tolist() == [1, 0]


@pytest.mark.usefixtures("digits")
def test_idx_files_are_recognised_by_their_content(prepare: Prepare, tmp_path: Path, capsys: Capture) -> None:
    unpacked, packed = tmp_path / "a-images-idx3.gz", tmp_path / "a-labels-idx1"
    unpacked.write_bytes((tmp_path / "train-images-idx3-ubyte").read_bytes())
    packed.write_bytes((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    expected = prepare(tmp_path / "train-images-idx3-ubyte")
    labels, images = expected.splits["train"].numbers("label").tolist(), rows(expected)
    found = prepare(unpacked)
    assert np.array_equal(rows(found), images)
    assert found.splits["train"].numbers("label").tolist() == labels
    packed.unlink()
    assert prepare(unpacked).manifest["pixels"]["labels"] == []
    assert "1 x no file of labels beside the images: a-images-idx3.gz" in capsys.readouterr().out


def test_a_class_whose_name_is_not_utf_8_is_shown_with_escapes(prepare: Prepare, tmp_path: Path) -> None:
    for at, name in enumerate([b"caf\xe9", b"tea"]):
        save(tmp_path / "rooms" / os.fsdecode(name) / "0.png", np.array([[at, 9]], np.uint8))
    assert prepare(tmp_path / "rooms").manifest["pixels"]["labels"] == ["caf\\udce9", "tea"]
