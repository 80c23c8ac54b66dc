"""`unroll prepare music` reads piano rolls, MIDI files and folders, and keeps copies in one split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.music import command
from pipeline.cli import main
from pipeline.dataset.codecs.midi import midi_of
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.music import KEYS
from tests.unit.data_prep import valid_files as made

Prepare = Callable[..., tuple[Dataset, dict[str, Any]]]


def tune(seed: int, frames: int = 8) -> np.ndarray:
    found = np.zeros((frames, KEYS), bool)
    found[np.arange(frames), np.random.default_rng(seed).integers(20, 60, frames)] = True
    return found


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    def prepare(*arguments: str | Path) -> tuple[Dataset, dict[str, Any]]:
        output = tmp_path / "dataset"
        assert command.main([*map(str, arguments), "--output", str(output), "--overwrite", "--workers", "1"]) == 0
        return Dataset.open(output, "music"), json.loads((output / "report.json").read_text())

    return prepare


def test_piano_rolls_keep_the_splits_of_their_file(prepare: Prepare, tmp_path: Path) -> None:
    rolls = [tune(seed).astype(np.uint8) for seed in range(4)]
    content = made.mat(
        {"traindata": rolls[:2], "validdata": rolls[2:3], "testdata": [rolls[3], np.roll(rolls[0], 2, 1)]}
    )
    (tmp_path / "rolls.mat").write_bytes(content)
    dataset, report = prepare(tmp_path / "rolls.mat", "--steps-per-beat", "1")
    assert {name: split.pieces for name, split in dataset.splits.items()} == {"train": 2, "validation": 1, "test": 2}
    np.testing.assert_array_equal(dataset.splits["train"].piece(1), rolls[1] == 1)
    assert dataset.splits["test"].names == ["rolls.mat:testdata:0", "rolls.mat:testdata:1"]
    assert dataset.manifest["music"] == {"steps_per_beat": 1}
    assert report["noted"]["in another split too"] == {"count": 1, "first": ["rolls.mat:testdata:1 (train)"]}


def test_copies_in_another_key_are_in_one_split(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "midi").mkdir()
    for number in range(30):
        moved = np.roll(tune(number % 15), 5 * (number >= 15), 1)
        (tmp_path / "midi" / f"{number}.mid").write_bytes(midi_of(moved, 2))
    dataset, report = prepare(tmp_path / "midi", "--validation-share", "0.3", "--test-share", "0.3")
    homes = {int(Path(name).stem): split for split, each in dataset.splits.items() for name in each.names}
    assert len(homes) == 30
    assert all(homes[number] == homes[number + 15] for number in range(15))
    assert report["noted"]["copy of an earlier piece"]["count"] == 15


def test_folders_of_splits_are_recognised_and_bad_files_are_named(prepare: Prepare, tmp_path: Path) -> None:
    for split, seeds in {"train": range(6), "valid": range(6, 8)}.items():
        (tmp_path / "midi" / split).mkdir(parents=True)
        for seed in seeds:
            (tmp_path / "midi" / split / f"{seed}.MID").write_bytes(midi_of(tune(seed), 2))
    (tmp_path / "midi" / "train" / "bad.mid").write_bytes(b"MThd")
    (tmp_path / "midi" / "train" / "short.mid").write_bytes(midi_of(tune(1, 1), 2))
    (tmp_path / "midi" / "train" / "notes.txt").write_text("x")
    dataset, report = prepare(tmp_path / "midi", "--test-share", "0", "--max-bad-share", "0.3")
    assert {name: split.pieces for name, split in dataset.splits.items()} == {"train": 6, "validation": 2}
    assert report["bad"] == {
        "damaged MIDI file": {"count": 1, "first": ["bad.mid (EOFError)"]},
        "fewer than 2 frames": {"count": 1, "first": ["short.mid (1)"]},
    }
    assert report["left_out"]["suffix .txt"]["count"] == 1


def test_arrays_that_are_not_rolls_are_counted(prepare: Prepare, tmp_path: Path) -> None:
    good = [tune(seed).astype(np.uint8) for seed in range(9)]
    bad = [np.zeros((4, 12), np.uint8), np.full((4, KEYS), 64.0), np.zeros((4, KEYS), np.uint8)]
    (tmp_path / "rolls.mat").write_bytes(made.mat({"pieces": [*good, *bad]}))
    _, report = prepare(tmp_path / "rolls.mat", "--max-bad-share", "0.5")
    assert {reason: each["count"] for reason, each in report["bad"].items()} == {
        "array that is not frames x 88 keys": 1,
        "array with other values than 0 and 1": 1,
        "silence": 1,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mid"], "source none.mid does not exist. Name a MIDI file, a directory, a .mat file or builtin"),
        (["empty"], "directory empty has no music (.mid, .midi, .mat). Name another one"),
        (["builtin:1"], "the test split has no valid pieces. Give more pieces, or change the shares"),
        (
            ["--train", "rolls.mat"],
            "--train rolls.mat: expected pieces without splits, got traindata, validdata, testdata",
        ),
        (["--validation", "rolls.mat"], "--validation and --test require --train"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "rolls.mat").write_bytes(made.rolls()[0])
    assert main(["prepare", "music", *arguments, "--workers", "1", "--output", "out"]) in (2, 3)
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_generated_pieces_are_always_the_same(prepare: Prepare) -> None:
    first, second = (prepare("builtin:20")[0] for _ in range(2))
    assert first.checksum == second.checksum
    piece = first.splits["train"].piece(0)
    assert set(piece.sum(1)) <= {3, 4}  # four voices, of which two may meet
