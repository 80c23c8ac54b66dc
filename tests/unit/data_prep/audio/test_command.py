"""Clips of every layout become a dataset; what is wrong with one is counted and named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.audio import command as audio
from data_prep.audio import key_tones
from data_prep.audio.clips import Clip
from data_prep.audio.decode import Heard, Hearing
from pipeline.dataset.codecs.audio import decode
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError

RATE = 8000


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **how: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **how)


def prepare(source: Path | str, output: Path, *options: str) -> Dataset:
    shares = () if "--validation-share" in options else ("--validation-share", "0", "--test-share", "0")
    common = ["--output", str(output), "--rate", str(RATE), "--workers", "1", *shares]
    assert audio.main([str(source), *common, *options]) == 0
    return Dataset.open(output, "audio")


def texts(dataset: Dataset, split: str = "train") -> dict[str, str]:
    rows = dataset.splits[split]
    return {rows.value("name", row): rows.references(row)[0] for row in range(rows.rows)}


def test_names_that_follow_a_pattern_give_labels_and_speakers(tmp_path: Path) -> None:
    for number, name in enumerate(["yes_ann_0", "no_ann_0", "yes_bob_0", "no_cat_1", "maybe_cat_1"]):
        write(tmp_path / "in" / f"{name}.wav", tone(0.2 + number / 10))
    pattern = ["--pattern", "{label}_{speaker}_{index}", "--test-where", "index=1", "--validation-where", "speaker=bob"]
    dataset = prepare(tmp_path / "in", tmp_path / "out", *pattern)
    assert dataset.manifest["audio"] == {"rate": RATE, "labels": ["no", "yes"]}
    assert texts(dataset) == {"no_ann_0.wav": "no", "yes_ann_0.wav": "yes"}
    assert texts(dataset, "validation") == {"yes_bob_0.wav": "yes"}
    assert texts(dataset, "test") == {"no_cat_1.wav": "no"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["bad"] == {"a label that training lacks (maybe)": {"count": 1, "first": ["maybe_cat_1.wav"]}}


@pytest.fixture(autouse=True)
def _small_sources_may_be_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a source has four clips, two bad ones are half of it."""
    main = audio.main
    monkeypatch.setattr(audio, "main", lambda argv: main([*argv, "--max-bad-share", "0.99"]))


def test_a_manifest_names_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "wav" / "a.wav", tone(0.3))
    write(tmp_path / "wav" / "b.flac", tone(0.4, rate=16000), 16000)
    lines = [{"audio_filepath": "wav/a.wav", "text": "Hello"}, {"audio_filepath": "wav/b.flac", "text": "You"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\nnonsense\n{}\n")
    dataset = prepare(tmp_path / "m.jsonl", tmp_path / "out", "--lowercase")
    assert texts(dataset) == {"wav/a.wav": "hello", "wav/b.flac": "you"}
    rows = dataset.splits["train"]
    assert rows.numbers("samples").tolist() == [2400, 3200]
    assert np.abs(decode(rows.value("audio", 0)) - tone(0.3)).max() < 1e-4
    bad = json.loads((tmp_path / "out" / "report.json").read_text())["bad"]
    assert {reason.split(" (")[0]: each["count"] for reason, each in bad.items()} == {"not JSON": 1, "no file named": 1}
    (tmp_path / "m.csv").write_text("path,sentence,who\nwav/a.wav,Hello,ann\n")
    options = ["--text-field", "sentence", "--speaker-field", "who"]
    dataset = prepare(tmp_path / "m.csv", tmp_path / "csv", *options)
    assert texts(dataset) == {"wav/a.wav": "Hello"}
    assert dataset.splits["train"].value("speaker", 0) == "ann"


def test_the_layouts_of_ljspeech_and_librispeech_are_known(tmp_path: Path) -> None:
    write(tmp_path / "lj" / "wavs" / "LJ1.wav", tone(0.3))
    (tmp_path / "lj" / "metadata.csv").write_text("LJ1|Dr. Who|Doctor Who\nLJ2|lost|lost\n")
    dataset = prepare(tmp_path / "lj", tmp_path / "out")
    assert texts(dataset) == {"LJ1.wav": "Doctor Who"}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["bad"]["no such file"]["count"] == 1
    write(tmp_path / "ls" / "19" / "198" / "19-198-0000.flac", tone(0.3))
    (tmp_path / "ls" / "19" / "198" / "19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n")
    dataset = prepare(tmp_path / "ls", tmp_path / "out2")
    assert texts(dataset) == {"19-198-0000.flac": "NORTHANGER ABBEY"}
    assert dataset.splits["train"].value("speaker", 0) == "19"


def bad_files(folder: Path) -> None:
    """Files that are wrong in every way, and three that are right, with a manifest."""
    good = tone(0.5)
    write(folder / "good.wav", good)
    write(folder / "deep.wav", good, subtype="PCM_24")
    write(folder / "float.wav", good, subtype="FLOAT")
    write(folder / "eight.wav", np.stack([good] * 8, 1))
    write(folder / "loud.wav", np.sign(good))
    write(folder / "one.wav", np.array([0.1]))
    write(folder / "none.wav", np.zeros(0))
    write(folder / "nan.wav", np.where(np.arange(4000) == 7, math.nan, good), subtype="FLOAT")
    write(folder / "long.wav", tone(3.0))
    write(folder / "whole.flac", good)
    write(folder / "quiet.wav", good)
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:-500])
    (folder / "called.flac").write_bytes((folder / "good.wav").read_bytes())
    (folder / "text.wav").write_text("hello")
    (folder / "empty.wav").write_bytes(b"")
    names = sorted(path.name for path in folder.iterdir())
    records = [{"file": name, "text": "" if name == "quiet.wav" else "abc"} for name in [*names, "absent.wav"]]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))


def test_every_bad_file_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad_files(tmp_path / "in")
    dataset = prepare(tmp_path / "in", tmp_path / "out", "--max-seconds", "2")
    kept = {"good.wav", "deep.wav", "float.wav", "eight.wav", "loud.wav", "whole.flac", "called.flac"}
    assert set(texts(dataset)) == kept
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    named = {
        name: reason for kind in ("bad", "noted") for reason, each in report[kind].items() for name in each["first"]
    }
    assert named == {
        "one.wav": "shorter than 0.1 s: dropped",
        "long.wav": "longer than 2 s: dropped",
        "none.wav": "no samples",
        "empty.wav": "empty file",
        "nan.wav": "NaN or infinite samples",
        "text.wav": named["text.wav"],
        "cut.flac": named["cut.flac"],
        "absent.wav": "cannot be read: No such file or directory",
        "quiet.wav": "no text",
        "loud.wav": "clipped: samples at full scale",
        "eight.wav": "8 channels, mixed into one",
        "called.flac": "WAV by content, .flac by name",
    }
    assert "no sound that can be read" in named["text.wav"]
    assert "no sound that can be read" in named["cut.flac"] or named["cut.flac"] == "cut short"
    assert "1 x clipped: samples at full scale: loud.wav" in capsys.readouterr().out


def test_too_many_bad_files_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_files(tmp_path / "in")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"of \d+ records are bad .*above --max-bad-share 0.1"):
        prepare(tmp_path / "in", tmp_path / "out", "--max-bad-share", "0.1")
    assert not (tmp_path / "out").exists()


def test_characters_that_training_lacks_are_noted(tmp_path: Path) -> None:
    for name, text in (("a", "abc"), ("b", "abz")):
        write(tmp_path / f"{name}.wav", tone(0.3))
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"file": f"{name}.wav", "text": text}))
    dataset = prepare(tmp_path / "a.jsonl", tmp_path / "out", "--validation", str(tmp_path / "b.jsonl"))
    noted = json.loads((tmp_path / "out" / "report.json").read_text())["noted"]
    assert noted == {"characters or words that the vocabulary lacks": {"count": 1, "first": ["b.wav"]}}
    assert dataset.splits["validation"].references(0) == ["abz"]


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
    with pytest.raises(DataError, match=r"speaker . is in .* and in .*: leave out --by-speaker"):
        prepare(tmp_path / "in", tmp_path / "other", *options, "--test-where", "index=0-4")


@pytest.mark.parametrize(("speakers", "lacking"), [(1, "train"), (2, "train")])
def test_too_few_speakers_for_the_splits_are_told(tmp_path: Path, speakers: int, lacking: str) -> None:
    for number in range(4):
        write(tmp_path / "in" / f"yes_{number % speakers}_{number}.wav", tone(0.1))
    options = ["--pattern", "{label}_{speaker}_{index}", "--by-speaker", "--validation-share", "0.1"]
    told = f"--by-speaker: of {speakers} speakers none is left for the {lacking} split: set --validation-share"
    with pytest.raises(DataError, match=told):
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


def test_key_tones_are_the_frequencies_of_the_recommendation() -> None:
    for key, pair in key_tones.TONES.items():
        power = np.abs(np.fft.rfft(key_tones.tones(key, 1.0))) ** 2
        assert sorted(np.argsort(power)[-2:]) == sorted(pair)  # one bin is 1 Hz
    assert key_tones.TONES["1"] == (697, 1209)
    assert key_tones.TONES["D"] == (941, 1633)
    assert len(key_tones.TONES) == 16


def test_the_builtin_source_is_always_the_same(tmp_path: Path) -> None:
    first, second = (prepare("builtin:5", tmp_path / name) for name in ("one", "two"))
    assert first.checksum == second.checksum
    assert all(3 <= len(text.split()) <= 7 for text in texts(first).values())


def test_a_preparation_that_was_killed_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = ["--validation-share", "0.2", "--test-share", "0.2"]
    monkeypatch.setattr("data_prep.workspace.resumable_rows.SHARD_BYTES", 40_000)
    straight = prepare("builtin:40", tmp_path / "straight", *shares)
    hear, calls = Hearing.__call__, []

    def dying(self: Hearing, clip: Clip) -> Heard | str:
        calls.append(clip.name)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return "cannot be read" if clip.name.endswith("4") else hear(self, clip)

    monkeypatch.setattr(Hearing, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare("builtin:40", tmp_path / "killed", *shares)
    killed = prepare("builtin:40", tmp_path / "killed", *shares)
    assert "continuing after " in capsys.readouterr().err
    assert 40 < len(calls) < 60  # not all were heard twice
    lost = {f"keys-000{tens}4" for tens in range(4)}
    for split, rows in straight.splits.items():
        expected = {name: text for name, text in texts(straight, split).items() if name not in lost}
        assert texts(killed, split) == expected
        assert killed.manifest["splits"][split]["seconds"] == pytest.approx(
            killed.splits[split].numbers("samples").sum() / RATE
        )
        assert rows.rows == len(texts(straight, split))
    report = json.loads((tmp_path / "killed" / "report.json").read_text())
    assert report["clips_read"] == 36
    assert set(report["bad"]["cannot be read"]["first"]) == lost
    assert len(killed.splits["train"].shards) > 1


def test_clips_that_have_changed_are_heard_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        write(tmp_path / "in" / f"yes_{number}.wav", tone(0.2))
    (tmp_path / "in" / "yes_3.wav").write_bytes(b"")
    monkeypatch.undo()
    options = ["--pattern", "{label}_{index}"]
    with pytest.raises(DataError, match="1 of 6 records are bad"):
        prepare(tmp_path / "in", tmp_path / "out", *options)
    write(tmp_path / "in" / "yes_3.wav", tone(0.3))
    dataset = prepare(tmp_path / "in", tmp_path / "out", *options)
    assert "the sources have changed" in capsys.readouterr().err
    assert dataset.splits["train"].rows == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name one source"),
        (["in", "--pattern", "no field"], "wants fields in braces"),
        (["in", "--test-where", "index"], "is no condition"),
        (["in", "--join", "5", "3"], "fewest clips first"),
        (["in", "--rate", "0"], "must be at least 1"),
        (["in", "--min-seconds", "2", "--max-seconds", "1"], "must be below"),
        (["in", "--test-share", "1"], "is no share"),
    ],
)
def test_options_that_cannot_be_are_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    write(tmp_path / "in" / "a.wav", tone(0.2))
    given = [str(tmp_path / each) if each == "in" else each for each in options]
    with pytest.raises(ConfigError, match=message):
        audio.main([*given, "--output", str(tmp_path / "out")])


def test_sources_that_are_none_are_one_line(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.wav", tone(0.2))
    with pytest.raises(DataError, match="there is no source"):
        prepare(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match="builtin:x: after the colon comes how many clips"):
        prepare("builtin:x", tmp_path / "out")
    with pytest.raises(DataError, match="say with --pattern"):
        prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="no clip has a label; its fields are index"):
        prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{index}")
    with pytest.raises(DataError, match="no clip meets the conditions of --test-where"):
        prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{label}", "--test-where", "label=b")
