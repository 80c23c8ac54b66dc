"""Invalid clips and transcripts are counted and named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError
from tests.unit.data_prep.audio.recordings import prepare, texts, tone, write


def bad_files(folder: Path) -> None:
    """Write invalid, unusual and valid files of every kind, with a manifest."""
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
        name.partition(" ")[0]: f"{reason} {name.partition(' ')[2]}".strip()
        for kind in ("bad", "noted")
        for reason, each in report[kind].items()
        for name in each["first"]
    }
    assert named == {
        "one.wav": "shorter than 0.1 s: dropped",
        "long.wav": "longer than 2 s: dropped",
        "none.wav": "no samples",
        "empty.wav": "empty file",
        "nan.wav": "NaN or infinite samples",
        "text.wav": named["text.wav"],
        "cut.flac": named["cut.flac"],
        "absent.wav": "cannot be read (No such file or directory)",
        "quiet.wav": "no text",
        "loud.wav": "clipped: samples at full scale",
        "eight.wav": "more than two channels, mixed into one (8 channels)",
        "called.flac": "content of another format than the file name (WAV by content, .flac by name)",
    }
    assert "not readable as audio" in named["text.wav"]
    assert "not readable as audio" in named["cut.flac"] or named["cut.flac"] == "truncated"
    assert "1 x clipped: samples at full scale: loud.wav" in capsys.readouterr().out


def test_too_many_bad_files_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_files(tmp_path / "in")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"--max-bad-share=0.1: \d+ of \d+ clips are invalid"):
        prepare(tmp_path / "in", tmp_path / "out", "--max-bad-share", "0.1")
    assert not (tmp_path / "out").exists()


def test_characters_outside_the_vocabulary_are_noted(tmp_path: Path) -> None:
    for name, text in (("a", "abc"), ("b", "abz")):
        write(tmp_path / f"{name}.wav", tone(0.3, 300 if name == "a" else 400))
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"file": f"{name}.wav", "text": text}))
    dataset = prepare(tmp_path / "a.jsonl", tmp_path / "out", "--validation", str(tmp_path / "b.jsonl"))
    noted = json.loads((tmp_path / "out" / "report.json").read_text())["noted"]
    assert noted == {"characters or words outside the vocabulary": {"count": 1, "first": ["b.wav"]}}
    assert dataset.splits["validation"].references(0) == ["abz"]


def test_silence_and_unlikely_transcripts_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, nothing = tone(0.3), np.zeros(2400)
    write(tmp_path / "sound.wav", sound)
    write(tmp_path / "zeros.wav", nothing)
    write(tmp_path / "hiss.wav", nothing + np.tile([0, 1 / 32768], 1200))
    write(tmp_path / "offset.wav", nothing + 0.25)
    write(tmp_path / "left.wav", np.stack([sound, nothing], 1))
    write(tmp_path / "apart.wav", np.stack([sound, -sound], 1))
    write(tmp_path / "fast.wav", sound)
    write(tmp_path / "part.wav", np.concatenate([sound, nothing]))
    (tmp_path / "more.wav").write_bytes((tmp_path / "sound.wav").read_bytes() + bytes(777))
    names = ("sound", "zeros", "hiss", "offset", "left", "apart", "fast", "more")
    records = [{"path": f"{name}.wav", "text": "abc" * (20 if name == "fast" else 1)} for name in names]
    records.append({"path": "part.wav", "text": "abc", "offset": 0.3, "duration": 0.3})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    dataset = prepare(tmp_path / "m.jsonl", tmp_path / "out")
    assert dataset.splits["train"].rows == 9
    noted = json.loads((tmp_path / "out" / "report.json").read_text())["noted"]
    assert {reason: each["first"] for reason, each in noted.items()} == {
        "silence": ["zeros.wav", "hiss.wav", "part.wav#t=0.3,0.6"],
        "silence: all samples have the same value": ["offset.wav (0.25)"],
        "silence: the channels cancel each other when mixed": ["apart.wav"],
        "a silent channel, mixed with the others": ["left.wav (1 of 2 channels)"],
        "transcript of more than 100 characters per second": ["fast.wav"],
        "bytes after the samples are not read": ["more.wav (777 bytes)"],
    }
    assert "3 x silence: zeros.wav, hiss.wav, part.wav#t=0.3,0.6" in capsys.readouterr().out
