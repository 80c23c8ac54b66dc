"""An interrupted preparation continues; options that contradict each other are a one-line error."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_prep.audio import command as audio
from data_prep.audio.clips import Clip
from data_prep.audio.decode import ClipDecoder, DecodedClip, Invalid
from pipeline.errors import ConfigError, DataError
from tests.unit.data_prep.audio.recordings import RATE, prepare, texts, tone, write


def test_an_interrupted_preparation_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = ["--validation-share", "0.2", "--test-share", "0.2"]
    monkeypatch.setattr("data_prep.workspace.resumable_rows.SHARD_BYTES", 40_000)
    straight = prepare("builtin:40", tmp_path / "straight", *shares)
    decode, calls = ClipDecoder.__call__, []

    def interrupt_thirtieth_call(self: ClipDecoder, clips: Sequence[Clip]) -> list[DecodedClip | Invalid]:
        calls.append(clips[0].name)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return [Invalid("cannot be read")] if clips[0].name.endswith("4") else decode(self, clips)

    monkeypatch.setattr(ClipDecoder, "__call__", interrupt_thirtieth_call)
    with pytest.raises(KeyboardInterrupt):
        prepare("builtin:40", tmp_path / "killed", *shares)
    killed = prepare("builtin:40", tmp_path / "killed", *shares)
    assert "continuing after " in capsys.readouterr().err
    assert 40 < len(calls) < 60  # Not all clips were decoded twice.
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


def test_clips_that_have_changed_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        write(tmp_path / "in" / f"yes_{number}.wav", tone(0.2))
    (tmp_path / "in" / "yes_3.wav").write_bytes(b"")
    monkeypatch.undo()
    options = ["--pattern", "{label}_{index}"]
    with pytest.raises(DataError, match="1 of 6 clips are invalid"):
        prepare(tmp_path / "in", tmp_path / "out", *options)
    write(tmp_path / "in" / "yes_3.wav", tone(0.3))
    dataset = prepare(tmp_path / "in", tmp_path / "out", *options)
    assert "the sources have changed" in capsys.readouterr().err
    assert dataset.splits["train"].rows == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected one source of training clips, SOURCE or --train SOURCE, got none"),
        (["in", "--train", "other"], "expected one source of training clips, .*, got both"),
        (["in", "--pattern", "no field"], "--pattern=no field: expected fields in braces"),
        (["in", "--test-where", "index"], "--test-where: expected FIELD=VALUE,VALUE or FIELD=0-4, got index"),
        (["in", "--join", "5", "3"], "--join 5 3: the minimum must come first"),
        (["in", "--rate", "0"], "at least 1, got 0"),
        (["in", "--min-seconds", "2", "--max-seconds", "1"], "must be below"),
        (["in", "--test-share", "1"], "from 0 to below 1, got 1"),
    ],
)
def test_invalid_options_are_a_one_line_error(tmp_path: Path, options: list[str], message: str) -> None:
    write(tmp_path / "in" / "a.wav", tone(0.2))
    given = [str(tmp_path / each) if each == "in" else each for each in options]
    with pytest.raises(ConfigError, match=message):
        audio.main([*given, "--output", str(tmp_path / "out")])
