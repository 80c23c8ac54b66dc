"""Captioned images are read from every kind of source, scaled and split by image; invalid records are named."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer

from data_prep.captions import command as captions
from data_prep.captions.sources import Captioned
from data_prep.sources.shapes import drawn
from pipeline.dataset.codecs.image import decode_image
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError

WHOLE = ["--validation-share", 0, "--test-share", 0, "--tokenizer", "byte", "--workers", 1]
COUNT = 24
Capture = pytest.CaptureFixture[str]


def prepare(output: Path, *arguments: object) -> Dataset:
    assert captions.main([*map(str, arguments), "--output", str(output)]) == 0
    return Dataset.open(output, kind="captions")


def rows(dataset: Dataset, split: str = "train") -> dict[str, list[str]]:
    """Return the captions of every image by name, after checking their tokens and the image."""
    tokenizer = Tokenizer.from_file(str(dataset.target.file))
    found, part = {}, dataset.splits[split]
    for row in range(part.rows):
        samples = range(part.first_samples[row], part.first_samples[row + 1])
        assert [tokenizer.decode(part.target(sample)) for sample in samples] == part.references(row)
        assert decode_image(part.value("image", row)).mode == "RGB"
        found[part.value("name", row)] = part.references(row)
    return found


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a directory of drawings."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number}.jpg").write_bytes(drawn(number)[0])
    return folder


@pytest.fixture
def table(images: Path, tmp_path: Path) -> Path:
    """Return a table of the captions of the drawings, one per row, not sorted by image."""
    captions = [(f"{number}.jpg", caption) for number in range(COUNT) for caption in drawn(number)[1]]
    with (file := tmp_path / "captions.csv").open("w") as opened:
        csv.writer(opened).writerows([("image", "caption"), *captions[::2], *captions[1::2]])
    return file


def expected(prefix: str = "") -> dict[str, set[str]]:
    return {f"{prefix}{number}.jpg": set(drawn(number)[1]) for number in range(COUNT)}


def as_sets(found: dict[str, list[str]]) -> dict[str, set[str]]:
    return {name: set(captions) for name, captions in found.items()}


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


def test_tars_hold_images_beside_their_captions(images: Path, tmp_path: Path) -> None:
    def add(file: tarfile.TarFile, name: str, data: bytes) -> None:
        about = tarfile.TarInfo(name)
        about.size = len(data)
        file.addfile(about, io.BytesIO(data))

    for part in range(2):
        with tarfile.open(tmp_path / f"{part}.tar", "w") as file:
            for number in range(part, COUNT, 2):
                image, captions = drawn(number)
                add(file, f"a/{number}.jpg", image)
                packed = json.dumps({"caption": captions}).encode() if part else captions[0].encode()
                add(file, f"a/{number}.{'json' if part else 'txt'}", packed)
            add(file, "a/lonely.jpg", image)
    options = [*WHOLE, "--max-bad-share", 0.1]
    found = rows(prepare(tmp_path / "out", tmp_path / "0.tar", tmp_path / "1.tar", *options))
    assert found["0.tar:a/4"] == drawn(4)[1][:1]
    assert set(found["1.tar:a/5"]) == set(drawn(5)[1])
    assert len(found) == COUNT
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["bad"]["image without captions"]["first"] == ["0.tar:a/lonely", "1.tar:a/lonely"]


def test_a_data_set_that_the_hub_library_reads_is_a_source(images: Path, tmp_path: Path) -> None:
    with (images / "metadata.csv").open("w") as file:
        csv.writer(file).writerows([("file_name", "text"), *((f"{n}.jpg", drawn(n)[1][0]) for n in range(COUNT))])
    found = rows(prepare(tmp_path / "out", f"hub:{images}", "--caption-field", "text", *WHOLE))
    assert sorted(caption for [caption] in found.values()) == sorted(drawn(n)[1][0] for n in range(COUNT))


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
    reasons = ["truncated image: 1.jpg", "not a readable image: 2.jpg", "more than 1000000 pixels: 3.jpg"]
    for reason in [*reasons, "image without captions: lonely.png", "caption without its image: "]:
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
        (["a.csv"], DataError, "has no column caption, only image, text"),
        (["e.csv"], DataError, "e.csv is empty. The first line must name the columns"),
        (["b.json"], DataError, "b.json is not a COCO file of captions"),
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
    Path("empty").mkdir()
    for name, text in (("a.csv", "image,text\n"), ("b.json", "[]"), ("c.tar", "x" * 600), ("d.mp4", ""), ("e.csv", "")):
        Path(name).write_text(text)
    with pytest.raises(error, match=message):
        captions.main([*arguments, "--output", "out", "--workers", "1"])
    assert not Path("out").exists()
