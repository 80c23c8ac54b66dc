"""A clip that is listed again, by whatever name, stays in one split, once."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.audio.clips import Clip, Files, Part
from data_prep.audio.splits import once
from data_prep.workspace.report import Report
from pipeline.errors import DataError
from tests.unit.data_prep.audio.recordings import bad, prepare, report, texts, tone, write

FOLDERS = ("", "./", "other/", "other/other/", "other\\")
PARTS = (Part(), Part(0.0, 1.0), Part(1.0, 1.0), Part(channel=1))
SPLITS = ("train", "validation", "test")
Listed = tuple[int, int, str, str]
"""Numbers of a file and of a part, a spelling of the file's name, and a transcript."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Files with composed and decomposed names, links to the first one, and a linked folder."""
    path = tmp_path_factory.mktemp("clips")
    for number, form in enumerate(("NFC", "NFD")):
        (path / f"{unicodedata.normalize(form, 'é')}{number}.wav").write_bytes(b"x")
    (path / "link.wav").symlink_to(path / "é0.wav")
    (path / "hard.wav").hardlink_to(path / "é0.wav")
    (path / "other").symlink_to(path, target_is_directory=True)
    return Files(path)


def spellings(number: int) -> list[str]:
    names = [unicodedata.normalize(form, f"é{number}.wav") for form in ("NFC", "NFD")]
    return [folder + name for name in (*names, *(["link.wav", "hard.wav"] * (number == 0))) for folder in FOLDERS]


def listed() -> st.SearchStrategy[Listed]:
    return st.integers(0, 1).flatmap(
        lambda number: st.tuples(
            st.just(number),
            st.integers(0, len(PARTS) - 1),
            st.sampled_from(spellings(number)),
            st.sampled_from(["yes", "Yes", "no"]),
        )
    )


@given(rows=st.fixed_dictionaries({split: st.lists(listed(), max_size=8) for split in SPLITS}))
def test_no_clip_is_in_two_splits_or_twice_in_one(files: Files, rows: dict[str, list[Listed]]) -> None:
    counted, which = Report("clips"), {}
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for split, each in rows.items():
        for number, part, name, text in each:
            splits[split].append(Clip(name, files.find(name), {"text": text}, part=PARTS[part]))
            which[id(splits[split][-1])] = number, part
    kept = once(splits, True, counted)
    found = [which[id(clip)] for clips in kept.values() for clip in clips]
    assert len(found) == len(set(found))
    assert set(found) == set(which.values())
    assert {which[id(clip)] for clip in kept["test"]} == {which[id(clip)] for clip in splits["test"]}
    counts = counted.bad.total(), counted.noted.total(), counted.left_out.total()
    assert len(found) + sum(counts) == sum(map(len, rows.values()))


def test_clips_that_are_listed_again_are_named(tmp_path: Path) -> None:
    for at, name in enumerate("abc"):
        write(tmp_path / f"{name}.wav", tone(0.3, 300 + at))
    rows = {
        "train": [("a.wav", "Yes"), ("./a.wav", "yes"), ("b.wav", "no"), ("c.wav", "maybe"), ("c.wav", "never")],
        "test": [("b.wav", "no")],
    }
    for split, each in rows.items():
        records = [json.dumps({"path": name, "text": text}) + "\n" for name, text in each]
        (tmp_path / f"{split}.jsonl").write_text("".join(records))
    options = ["--test", str(tmp_path / "test.jsonl"), "--lowercase"]
    dataset = prepare(tmp_path / "train.jsonl", tmp_path / "out", *options)
    assert texts(dataset) == {"a.wav": "yes", "c.wav": "maybe"}
    assert texts(dataset, "test") == {"b.wav": "no"}
    assert bad(tmp_path / "out") == {"listed before with another transcript or label": ["c.wav (as c.wav)"]}
    assert report(tmp_path / "out")["left_out"] == {"clip listed twice": {"count": 1, "first": ["./a.wav"]}}
    noted = report(tmp_path / "out")["noted"]["in another split too: dropped from training"]
    assert noted == {"count": 1, "first": ["b.wav (kept for test)"]}


def test_no_clip_for_training_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.wav", tone(0.3))
    (tmp_path / "m.csv").write_text("path,text\na.wav,yes\n")
    (tmp_path / "few.csv").write_text("path,text\na.wav,yes,no\n")
    with pytest.raises(DataError, match=r"m.csv: every clip is in a held-out split too. Name other clips for training"):
        prepare(tmp_path / "m.csv", tmp_path / "out", "--validation", str(tmp_path / "m.csv"))
    monkeypatch.undo()
    with pytest.raises(
        DataError, match=r"1 of 1 clips are invalid .another number of fields than the header: 1, first"
    ):
        prepare(tmp_path / "few.csv", tmp_path / "out")


def test_parts_that_overlap_those_of_another_split_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "call.wav", tone(4.0))
    parts = {"train": [(0, 1), (1, 1), (2.5, 1)], "validation": [(2, 0.5)], "test": [(0.5, 0.4), (3.4, 0.5)]}
    for split, each in parts.items():
        records = [{"path": "call.wav", "offset": start, "duration": long, "text": "a"} for start, long in each]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    prepare(tmp_path, tmp_path / "out")
    assert report(tmp_path / "out")["noted"]["overlaps a clip of another split"] == {
        "count": 2,
        "first": [
            "call.wav#t=0.5,0.9 (test, and call.wav#t=0,1 train)",
            "call.wav#t=3.4,3.9 (test, and call.wav#t=2.5,3.5 train)",
        ],
    }


def test_copies_of_a_file_in_two_splits_are_noted(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/c"):
        write(tmp_path / "in" / f"{name}_0.wav", tone(0.3, 300 if name == "train/b" else 400))
    prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{text}_{index}")
    assert report(tmp_path / "out")["noted"]["the same audio as a clip of another split"] == {
        "count": 1,
        "first": ["train/a_0.wav (train, and test)"],
    }
