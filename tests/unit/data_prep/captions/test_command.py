"""Captioned images are read from every kind of source, scaled and split by image; invalid records are named."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from data_prep.captions import command as captions
from data_prep.captions.sources import Captioned
from data_prep.sources.shapes import drawn
from pipeline.dataset.codecs.image import decode_image
from pipeline.errors import ConfigError, DataError
from tests.unit.data_prep.captions.photographs import COUNT, WHOLE, Capture, as_sets, expected, prepare, rows


def test_a_table_a_file_of_lines_and_coco_hold_the_same(images: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.jsonl").write_text(
        "".join(json.dumps({"image": f"{n}.jpg", "caption": drawn(n)[1]}) + "\n" for n in range(COUNT))
    )
    notes = [{"image_id": 7 * n, "caption": caption} for n in range(COUNT) for caption in drawn(n)[1]]
    named = [{"id": 7 * n, "file_name": f"{n}.jpg"} for n in range(COUNT)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": named, "annotations": notes}))
    for source in (table, tmp_path / "lines.jsonl", tmp_path / "coco.json"):
        dataset = prepare(tmp_path / f"from-{source.name}", source, "--images", images, *WHOLE)
        assert as_sets(rows(dataset)) == expected()
        split = dataset.splits["train"]
        assert split.samples == sum(map(len, expected().values()))
    table.rename(images / "captions.csv")  # a directory with its table
    assert as_sets(rows(prepare(tmp_path / "from-directory", images, *WHOLE))) == expected()


def test_captions_can_be_plain_words_and_long_ones_leave_training(images: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('image,caption\n0.jpg," A dog\'s  well-known trick . "\n0.jpg,' + "x" * 40 + "\n")
    options = ["--images", images, *WHOLE, "--max-bad-share", 0.99, "--plain", "--max-length", 39]
    assert rows(prepare(tmp_path / "out", tmp_path / "a.csv", *options)) == {"0.jpg": ["a dog's well-known trick"]}


def test_bad_images_and_captions_are_counted_and_named(
    images: Path, table: Path, tmp_path: Path, capsys: Capture
) -> None:
    Image.effect_noise((64, 64), 90).save(images / "1.jpg")
    (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:900])
    (images / "2.jpg").write_bytes(b"no image")
    Image.new("1", (2000, 2000)).save(images / "3.jpg")
    Image.new("CMYK", (70, 90)).save(images / "4.jpg")
    Image.new("P", (70, 90)).save(images / "lonely.png")
    with table.open("a") as file:
        file.write("nowhere.jpg,a ghost\n5.jpg,\n")
    options = [table, "--images", images, *WHOLE, "--max-pixels", 1_000_000, "--size", 48]
    with pytest.raises(DataError, match=r"--max-bad-share=0.01: 5 of 26 images are invalid"):
        prepare(tmp_path / "out", *options)
    dataset = prepare(tmp_path / "out", *options, "--max-bad-share", 0.5)
    assert set(rows(dataset)) == expected().keys() - {"1.jpg", "2.jpg", "3.jpg"}
    assert min(decode_image(dataset.splits["train"].value("image", 2)).size) == 48
    printed = capsys.readouterr().out
    reasons = ["truncated image: 1.jpg", "not a readable image: 2.jpg", "more than 1000000 pixels: 3.jpg (2000 x 2000)"]
    reasons += ["empty caption: ", "caption without its image: ", f"image without captions: {images}/lonely.png"]
    for reason in reasons:
        assert f"1 x {reason}" in printed


def test_an_interrupted_preparation_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    options = ["builtin:120", "--tokenizer", "byte", "--workers", 1]
    straight = prepare(tmp_path / "straight", *options)
    monkeypatch.setattr("data_prep.workspace.resumable_rows.SHARD_BYTES", 50_000)
    scale, calls = captions._scale, []

    def interrupt_fourth_call(size: int, max_pixels: int, batch: list[tuple[str, Captioned]]) -> list[captions.Scaled]:
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return scale(size, max_pixels, batch)

    monkeypatch.setattr(captions, "_scale", interrupt_fourth_call)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "killed", *options)
    killed = prepare(tmp_path / "killed", *options)
    assert "continuing after 64 images" in capsys.readouterr().err
    for split in straight.splits:
        assert rows(killed, split) == rows(straight, split)
        assert killed.splits[split].tokens == straight.splits[split].tokens
    assert len(killed.splits["train"].shards) > 1


def test_images_that_were_fixed_are_read_again(images: Path, table: Path, tmp_path: Path, capsys: Capture) -> None:
    (images / "2.jpg").write_bytes(b"no image")
    options = [table, "--images", images, *WHOLE]
    with pytest.raises(DataError, match="1 of 24 images are invalid"):
        prepare(tmp_path / "out", *options)
    (images / "2.jpg").write_bytes(drawn(2)[0])
    assert as_sets(rows(prepare(tmp_path / "out", *options))) == expected()
    assert "the sources have changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ([], ConfigError, "expected SOURCE.*, or --train .*, got neither"),
        (["none.csv"], DataError, "source none.csv does not exist"),
        (["builtin:x"], DataError, "builtin:x: expected a number of drawings after the colon, got x"),
        (["builtin:5", "--images", "nowhere"], DataError, "--images=nowhere is not a directory"),
        (
            ["--images", "a", "--images", "b", "builtin:5"],
            ConfigError,
            "--images=a b: expected one directory per split",
        ),
        (["a.csv"], DataError, "has no column caption or text, only image, title"),
        (["e.csv"], DataError, "e.csv is empty. Name a table"),
        (["b.json"], DataError, "b.json is not a COCO file of captions"),
        (["pipe.csv"], DataError, "source pipe.csv is not a regular file"),
        (["c.tar"], DataError, "c.tar is damaged"),
        (["d.mp4"], DataError, "unknown file extension '.mp4'"),
        (["."], DataError, "expected one file of captions, got 4"),
        (["empty"], DataError, "directory empty has no file of captions"),
    ],
)
def test_a_mistake_is_a_clear_error(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "empty"):
        Path(name).mkdir()
    os.mkfifo("pipe.csv")
    texts = {
        "a.csv": "image,title\na,b\n",
        "b.json": '{"annotations": 1}',
        "c.tar": "x" * 600,
        "d.mp4": "",
        "e.csv": "",
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    with pytest.raises(error, match=message):
        captions.main([*arguments, "--output", "out", "--workers", "1"])
    assert not Path("out").exists()
