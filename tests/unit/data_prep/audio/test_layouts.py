"""Clips of patterns of names, manifests and the built-in tones become a dataset."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.audio import key_tones
from pipeline.dataset.codecs.audio import decode
from pipeline.errors import DataError
from tests.unit.data_prep.audio.recordings import RATE, prepare, texts, tone, write


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
    assert report["bad"] == {"label not in training": {"count": 1, "first": ["maybe_cat_1.wav (maybe)"]}}


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
    assert {reason: each["count"] for reason, each in bad.items()} == {"invalid JSON": 1, "no file name": 1}
    (tmp_path / "m.csv").write_text("path,sentence,who\nwav/a.wav,Hello,ann\n")
    options = ["--text-field", "sentence", "--speaker-field", "who"]
    dataset = prepare(tmp_path / "m.csv", tmp_path / "csv", *options)
    assert texts(dataset) == {"wav/a.wav": "Hello"}
    assert dataset.splits["train"].value("speaker", 0) == "ann"


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


def test_an_invalid_source_is_a_one_line_error(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.wav", tone(0.2))
    with pytest.raises(DataError, match="absent does not exist"):
        prepare(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match="builtin:x: expected a number of clips after the colon, got x"):
        prepare("builtin:x", tmp_path / "out")
    with pytest.raises(DataError, match="describe the file names with --pattern"):
        prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match=r"no clip has the field label \(fields: index\)"):
        prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{index}")
    with pytest.raises(DataError, match="--test-where label=b: no clip matches"):
        prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{label}", "--test-where", "label=b")
