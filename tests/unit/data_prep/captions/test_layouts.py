"""Images and captions are read from the layouts in which they are published."""

import csv
import json
from pathlib import Path

import pytest

from data_prep.sources.shapes import drawn
from pipeline.errors import DataError
from tests.unit.data_prep.captions.photographs import COUNT, WHOLE, counts, prepare, report_of, rows, write_tar

LOOSE = [*WHOLE, "--max-bad-share", 0.95]


def coco(path: Path, numbers: range, **changes: object) -> Path:
    """Write a COCO file of one caption for each of these drawings."""
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 64, "height": 64} for number in numbers]
    annotations = [{"image_id": number, "caption": drawn(number)[1][0]} for number in numbers]
    path.write_text(json.dumps({"images": images, "annotations": annotations, **changes}))
    return path


def first(numbers: range) -> dict[str, list[str]]:
    return {f"{number}.jpg": drawn(number)[1][:1] for number in numbers}


def test_splits_of_coco_share_a_folder_or_have_their_own(images: Path, tmp_path: Path) -> None:
    train, held_out = coco(tmp_path / "train.json", range(16)), coco(tmp_path / "val.json", range(16, COUNT - 1))
    splits = ["--train", train, "--validation", held_out, *WHOLE]
    shared = prepare(tmp_path / "shared", *splits, "--images", images)
    assert rows(shared) == first(range(16))
    assert rows(shared, "validation") == first(range(16, COUNT - 1))
    assert report_of(shared)["noted"] == {
        "image without captions": {"count": 1, "first": [str(images / f"{COUNT - 1}.jpg")]}
    }
    (tmp_path / "val2017").mkdir()
    for number in range(16, COUNT):
        (images / f"{number}.jpg").rename(tmp_path / "val2017" / f"{number}.jpg")
    of_validation = "--images", f"validation={tmp_path / 'val2017'}"
    own = prepare(tmp_path / "own", *splits, "--images", f"train={images}", *of_validation)
    assert [rows(own, split) for split in own.splits] == [rows(shared, split) for split in shared.splits]
    one = prepare(tmp_path / "one", *splits, "--images", images, *of_validation)
    assert rows(one, "validation") == first(range(16, COUNT - 1))


def test_records_of_coco_that_contradict_each_other_are_named(images: Path, tmp_path: Path) -> None:
    named = [
        {"id": "0", "file_name": "0.jpg", "width": 64, "height": 64},
        {"id": 1, "file_name": "1.jpg", "width": 640, "height": 480},
        {"id": 2, "file_name": "absent.jpg"},
        {"id": 0, "file_name": "3.jpg"},
        {"id": None, "file_name": "4.jpg"},
        {"id": 5, "file_name": 5},
        "6.jpg",
    ]
    notes = [{"image_id": at, "caption": "a dog"} for at in range(7)]
    path = coco(tmp_path / "coco.json", range(0), images=named, annotations=[*notes, 7, {}])
    dataset = prepare(tmp_path / "out", path, "--images", images, *LOOSE)
    assert rows(dataset) == {"0.jpg": ["a dog"]}
    assert counts(dataset) == {
        "image of another size than stated": 1,
        "caption without its image": 1,
        "id of another image": 1,
        "image without an id": 2,
        "caption without an image": 5,
        "not a JSON object": 1,
    }
    first_of = {reason: entry["first"][0] for reason, entry in report_of(dataset)["bad"].items()}
    assert first_of["image of another size than stated"] == "1.jpg (64 x 64 instead of 640 x 480)"
    assert first_of["caption without its image"] == f"{path}: annotation 2 (absent.jpg)"


BAD_CAPTIONS = [None, 5, {"raw": "a"}, [None, "fine"], [["nested"]], "", " ", [], "half a pair \ud800"]


def test_captions_that_are_not_texts_are_bad_records_in_every_format(images: Path, tmp_path: Path) -> None:
    records = [{"image": f"{at}.jpg", "caption": caption} for at, caption in enumerate([*BAD_CAPTIONS, "right"])]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "list.json").write_text(json.dumps(records[:-2] + records[-1:]))
    notes = [{"image_id": at, "caption": record["caption"]} for at, record in enumerate(records)]
    coco(tmp_path / "coco.json", range(COUNT), annotations=notes)
    members = {}
    for at, record in enumerate(records):
        members |= {f"{at}.jpg": drawn(at)[0], f"{at}.json": json.dumps(record).encode()}
    write_tar(tmp_path / "records.tar", {**members, "98.jpg": drawn(0)[0], "98.json": b"[5]", "99.json": b"{}"})
    for name in ("lines.jsonl", "list.json", "coco.json", "records.tar"):
        dataset = prepare(tmp_path / f"from {name}", tmp_path / name, "--images", images, *LOOSE)
        assert sorted(rows(dataset).values()) == [["fine"], ["right"]], name
        found = counts(dataset)
        assert found["caption that is not a text"] == 5
        assert found["empty caption"] == 3
        assert found.get("not UTF-8", 0) == (name != "list.json")


def test_a_hub_data_set_with_missing_captions_and_images(images: Path, tmp_path: Path) -> None:
    lines = [{"file_name": f"{n}.jpg", "text": None if n == 7 else drawn(n)[1][0]} for n in range(COUNT)]
    (images / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    dataset = prepare(tmp_path / "out", f"hub:{images}", *LOOSE)
    assert report_of(dataset)["bad"] == {
        "caption that is not a text": {"count": 1, "first": [f"hub:{images}:7 (null)"]}
    }
    assert len(rows(dataset)) == COUNT - 1


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_folder_of_images_with_metadata_in_folders_of_splits(kind: str, tmp_path: Path) -> None:
    parts = {"train": range(6), "test": range(6, 9)}
    for part, numbers in parts.items():
        (tmp_path / "data" / part).mkdir(parents=True)
        lines = [(f"{number}.jpg", drawn(number)[1][0]) for number in numbers]
        for number in numbers:
            (tmp_path / "data" / part / f"{number}.jpg").write_bytes(drawn(number)[0])
        with (tmp_path / "data" / part / f"metadata.{kind}").open("w") as file:
            if kind == "csv":
                csv.writer(file).writerows([("file_name", "text"), *lines])
            else:
                file.writelines(json.dumps({"file_name": name, "text": text}) + "\n" for name, text in lines)
    dataset = prepare(tmp_path / "out", tmp_path / "data", "--tokenizer", "byte")
    assert {split: rows(dataset, split) for split in dataset.splits} == {
        part: first(numbers) for part, numbers in parts.items()
    }


def test_flickr8k_with_a_header_and_with_numbered_captions(images: Path, tmp_path: Path) -> None:
    table, numbered = tmp_path / "captions.txt", tmp_path / "Flickr8k.token.txt"
    table.write_text(
        '\ufeffimage,caption\n0.jpg,A dog .\n0.jpg,"A dog , and a ""cat"" ."\n1.jpg,Two dogs , running .\n'
    )
    numbered.write_text('0.jpg#0\tA dog , a cat , and a "bird .\n0.jpg#1\tA dog .\n1.jpg.1#0\tNo image .\n')
    dataset = prepare(tmp_path / "from-table", table, "--images", images, *LOOSE)
    assert rows(dataset) == {"0.jpg": ["A dog .", 'A dog , and a "cat" .']}
    assert report_of(dataset)["bad"] == {
        "another number of fields than the header": {"count": 1, "first": [f"{table}:4"]}
    }
    dataset = prepare(tmp_path / "from-numbered", numbered, "--images", images, *LOOSE)
    assert rows(dataset) == {"0.jpg": ['A dog , a cat , and a "bird .', "A dog ."]}
    assert counts(dataset) == {"caption without its image": 1}


def test_tables_of_conceptual_captions(images: Path, tmp_path: Path) -> None:
    texts = ['a "tall tower', 'it\'s read: "no"', "plain"]
    listed = "".join(f"{text}\t{number}.jpg\n" for number, text in enumerate(texts))
    address = "elsewhere\thttps://example.com/3.jpg\n"
    expected = {f"{number}.jpg": [text] for number, text in enumerate(texts)}
    (tmp_path / "headed.tsv").write_text(f"title\tfilepath\n{listed}{address}")
    (tmp_path / "bare.tsv").write_text(listed + address)
    fields = ["--image-field", "filepath", "--caption-field", "title"]
    for name, options in (("headed", fields), ("bare", [])):
        dataset = prepare(tmp_path / name, tmp_path / f"{name}.tsv", "--images", images, *options, *LOOSE)
        assert rows(dataset) == expected
        assert counts(dataset) == {"image is an address, not a file": 1}


def members(images: list[bytes]) -> dict[str, bytes]:
    """The files of a shard: captions in texts and in records, and what is not one."""
    return {
        "./a/0.JPG": images[0],
        "./a/0.txt": "\ufeffone\r\n\r\ntwo\n".encode(),
        "./a/._0.jpg": b"made by another system",
        "a/1.jpg": images[1],
        "a/1.json": json.dumps({"caption": ["three", "four"], "width": 64, "height": 64}).encode(),
        "a/1.txt": b"not read, because the record has captions",
        "a/2.jpg": images[2],
        "a/2.json": b'{"width": 1, "height": 2, "caption": "five"}',
        "a/3.jpg": images[3],
        "a/3.json": b'{"url": ""}',
        "a/3.caption": b"six",
        "a/4.seg.png": images[4],
        "a/4.jpg": images[4],
        "a/4.txt": b"seven",
        "a/lonely.jpg": images[5],
        "a/6.jpg": images[6],
        "a/6.txt": "eight".encode("utf-16"),
        "a/7.txt": b"nine",
        "a/8.jpg": images[8],
        "a/8.json": b"{}",
    }


def test_webdataset_has_captions_in_texts_or_records(tmp_path: Path) -> None:
    images = [drawn(number)[0] for number in range(COUNT)]
    write_tar(tmp_path / "0.tar", members(images))
    dotted = {
        f"v{number}.{ending}": data for number in (9, 10) for ending, data in (("jpg", images[number]), ("txt", b"ten"))
    }
    write_tar(tmp_path / "1.tar", {f"shard.1/photo.{name}": data for name, data in dotted.items()})
    for source in (tmp_path, [tmp_path / "0.tar", tmp_path / "1.tar"]):
        dataset = prepare(
            tmp_path / f"out{len(str(source))}", *(source if isinstance(source, list) else [source]), *LOOSE
        )
        assert rows(dataset) == {
            "0.tar:a/0": ["one", "two"],
            "0.tar:a/1": ["three", "four"],
            "0.tar:a/3": ["six"],
            "0.tar:a/4": ["seven"],
            "1.tar:shard.1/photo.v9": ["ten"],
            "1.tar:shard.1/photo.v10": ["ten"],
        }
        assert counts(dataset) == {
            "image of another size than stated": 1,
            "captions that are not UTF-8 or not JSON": 1,
            "caption without its image": 1,
            "no field caption or text in its .json": 1,
        }
        assert counts(dataset, "noted") == {"image without captions": 1}
        assert counts(dataset, "left_out") == {"hidden": 1}


def test_a_truncated_tar_file_is_noted_and_a_joined_one_refused(tmp_path: Path) -> None:
    images = [drawn(number)[0] for number in range(COUNT)]
    samples = {f"{number}.jpg": image for number, image in enumerate(images)}
    texts = {f"{number}.txt": b"one" for number in range(COUNT)}
    write_tar(tmp_path / "a.tar", {**dict(sorted((samples | texts).items())), "9.png": images[0]})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole.rstrip(b"\0").ljust(-(-len(whole.rstrip(b"\0")) // 512) * 512, b"\0"))
    (tmp_path / "joined.tar").write_bytes(whole * 2)
    several = {"several images of one name: the first is read": 1}
    assert counts(prepare(tmp_path / "whole", tmp_path / "a.tar", *WHOLE), "noted") == several
    noted = counts(prepare(tmp_path / "short", tmp_path / "cut.tar", *WHOLE), "noted")
    assert noted == several | {"no blocks of zeros at its end: the file may be truncated": 1}
    with pytest.raises(DataError, match=r"joined.tar: another archive follows the end of the first one"):
        prepare(tmp_path / "joined", tmp_path / "joined.tar", *WHOLE)


def test_a_link_to_itself_is_not_an_image(images: Path, tmp_path: Path) -> None:
    (images / "self.jpg").symlink_to("self.jpg")
    table = tmp_path / "a.csv"
    table.write_text("image_name| comment\n" + "".join(f"{n}.jpg| one\n" for n in [*range(COUNT), "self"]))
    fields = ["--image-field", "image_name", "--caption-field", "comment", "--images", images, "--max-bad-share", 0.5]
    dataset = prepare(tmp_path / "out", table, *fields, *WHOLE)
    assert set(map(tuple, rows(dataset).values())) == {("one",)}
    assert counts(dataset) == {"caption without its image": 1}


def test_a_data_set_that_the_hub_library_reads_is_a_source(images: Path, tmp_path: Path) -> None:
    with (images / "metadata.csv").open("w") as file:
        csv.writer(file).writerows([("file_name", "text"), *((f"{n}.jpg", drawn(n)[1][0]) for n in range(COUNT))])
    found = rows(prepare(tmp_path / "out", f"hub:{images}", "--caption-field", "text", *WHOLE))
    assert sorted(caption for [caption] in found.values()) == sorted(drawn(n)[1][0] for n in range(COUNT))
