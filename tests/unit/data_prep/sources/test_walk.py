"""Only regular, visible files with a known suffix are read; everything else is counted."""

import os
from pathlib import Path

import pytest

from data_prep.sources.walk import split_files, split_folders, walk
from data_prep.workspace.report import Report
from pipeline.errors import DataError


def files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    files(inside, "b.TXT", "a.txt.gz", "sub/c.Md", ".hidden.txt", "._mac.txt", ".ipynb_checkpoints/a.txt")
    files(inside, "__MACOSX/a.txt", "d.pdf", "e")
    files(tmp_path, "other/f.txt")
    (inside / "link").symlink_to(tmp_path / "other")
    (inside / "link2").symlink_to(tmp_path / "other")
    (inside / "sub/loop").symlink_to(inside)
    (inside / "g.txt").symlink_to(tmp_path / "other/f.txt")
    (inside / "gone.txt").symlink_to(tmp_path / "none")
    (inside / "self.txt").symlink_to("self.txt")
    os.mkfifo(inside / "pipe.txt")
    report = Report()
    found = walk(inside, (".txt", ".md"), report)
    assert [str(path.relative_to(inside)) for path in found] == [
        "a.txt.gz",
        "b.TXT",
        "g.txt",
        "link/f.txt",
        "sub/c.Md",
    ]
    assert report.left_out == {
        "hidden": 4,
        "already read through another link": 2,
        "broken link": 2,
        "not a regular file": 1,
        "suffix .pdf": 1,
        "suffix none": 1,
    }
    assert [line for line in report.lines() if line.startswith("left out 11: ")]
    assert report.as_json()["left_out"]["broken link"] == {  # type: ignore[index]
        "count": 2,
        "first": [str(inside / "gone.txt"), str(inside / "self.txt")],
    }


def test_a_missing_directory_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        walk(tmp_path / "none", (".txt",), Report())


def test_folders_of_splits_are_recognised_by_any_usual_name(tmp_path: Path) -> None:
    files(tmp_path, "Train/a", "dev/a", "testing/a", "more/a")
    assert split_folders(tmp_path) == {
        "train": tmp_path / "Train",
        "validation": tmp_path / "dev",
        "test": tmp_path / "testing",
    }
    files(tmp_path, "val/a")
    with pytest.raises(DataError, match="both the validation split"):
        split_folders(tmp_path)


@pytest.mark.parametrize("names", [["train/a"], ["test/a", "dev/a"], ["a/a"]])
def test_a_directory_without_train_and_another_split_has_none(tmp_path: Path, names: list[str]) -> None:
    files(tmp_path, *names)
    assert split_folders(tmp_path) == {}


def test_files_of_splits_are_recognised_if_every_name_has_one() -> None:
    names = ["wiki.train.tokens", "train-00001.txt", "Wiki_Valid.tokens", "test2017.txt.gz"]
    found = split_files([*map(Path, names)])
    assert {split: [file.name for file in files] for split, files in found.items()} == {
        "train": names[:2],
        "validation": names[2:3],
        "test": names[3:],
    }
    for others in (["train.txt"], [*names, "other.txt"], [*names, "train-test.txt"], ["valid.txt", "test.txt"]):
        assert split_files([*map(Path, others)]) == {}


def test_folders_of_splits_in_an_inner_folder_are_noted(tmp_path: Path) -> None:
    files(tmp_path, "data/train/a.txt", "data/Test/b.txt", "test/c.txt", "data/d.txt")
    report = Report()
    assert len(walk(tmp_path, (".txt",), report)) == 4
    assert report.noted == {"in an inner folder with the name of a split, which is not read as one": 2}
