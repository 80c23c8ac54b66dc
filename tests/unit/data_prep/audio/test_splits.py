"""Speakers and joined strings stay in one split."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.codecs.audio import decode
from pipeline.errors import DataError
from tests.unit.data_prep.audio.recordings import prepare, tone, write


def test_no_speaker_is_in_two_splits(tmp_path: Path) -> None:
    for number in range(60):
        write(tmp_path / "in" / f"yes_{number % 6}_{number}.wav", tone(0.1))
    options = ["--pattern", "{label}_{speaker}_{index}", "--by-speaker", "--validation-share", "0.1"]
    dataset = prepare(tmp_path / "in", tmp_path / "out", *options, "--test-share", "0.2")
    speakers = {
        name: {split.value("speaker", row) for row in range(split.rows)} for name, split in dataset.splits.items()
    }
    assert {name: len(each) for name, each in speakers.items()} == {"train": 3, "validation": 1, "test": 2}
    assert len(set.union(*speakers.values())) == 6
    with pytest.raises(DataError, match=r"speaker . is in both .* and .*omit --by-speaker"):
        prepare(tmp_path / "in", tmp_path / "other", *options, "--test-where", "index=0-4")


@pytest.mark.parametrize("speakers", [1, 2])
def test_too_few_speakers_for_the_splits_are_an_error(tmp_path: Path, speakers: int) -> None:
    for number in range(4):
        write(tmp_path / "in" / f"yes_{number % speakers}_{number}.wav", tone(0.1))
    options = ["--pattern", "{label}_{speaker}_{index}", "--by-speaker", "--validation-share", "0.1"]
    message = f"--by-speaker: expected a speaker for every split, got {speakers} and none left for train. Set --valid"
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "in", tmp_path / "out", *options, "--test-share", "0.1")


def test_joined_strings_hold_clips_of_their_own_split_and_speaker(tmp_path: Path) -> None:
    for number in range(40):
        name = f"{number % 10}_{'ann' if number < 20 else 'bob'}_{number // 10}"
        write(tmp_path / "in" / f"{name}.wav", tone(0.1 + 0.001 * number, 300 + 10 * number))
    options = ["--pattern", "{label}_{speaker}_{index}", "--test-where", "index=1,3", "--join", "3", "7"]
    dataset = prepare(tmp_path / "in", tmp_path / "out", *options, "--tokenizer", "word")
    for split, indices in (("train", (0, 2)), ("test", (1, 3))):
        rows = dataset.splits[split]
        assert rows.rows == 20  # each of 20 clips five times, in strings of five on average
        for row in range(rows.rows):
            digits = rows.references(row)[0].split()
            assert 3 <= len(digits) <= 7
            wave = decode(rows.value("audio", row))
            index = indices[rows.value("speaker", row) == "bob"]
            for digit in digits:
                number = index * 10 + int(digit)
                clip = tone(0.1 + 0.001 * number, 300 + 10 * number).astype(np.float32)
                assert np.abs(wave).max() > 0.49
                assert np.correlate(wave, clip, "valid").max() > 0.98 * (clip**2).sum()
