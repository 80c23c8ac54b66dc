"""Segments of recordings: NeMo's offsets, Kaldi's segments and Lhotse's cuts become clips of these samples alone."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.audio.decode import DURATION, ClipDecoder
from pipeline.dataset.codecs import audio
from pipeline.dataset.manifest import Dataset
from pipeline.errors import DataError
from tests.unit.data_prep.audio.recordings import RATE, bad, prepare, texts, tone, write

CALL = np.concatenate([tone(1.0, 200 + 100 * number) for number in range(4)])


def heard(dataset: Dataset, split: str = "train") -> dict[str, float]:
    """Return the strongest frequency of each clip in hertz."""
    rows = dataset.splits[split]
    found = {}
    for row in range(rows.rows):
        wave = audio.decode(rows.value("audio", row))
        found[rows.references(row)[0]] = float(np.abs(np.fft.rfft(wave)).argmax()) * RATE / len(wave)
    return found


def jsonl(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_an_offset_and_a_duration_are_a_part_of_a_recording_that_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "call.wav", CALL)
    decoded = []
    decode = audio.decode_audio
    monkeypatch.setattr(audio, "decode_audio", lambda data: decoded.append(len(data)) or decode(data))
    words = ["zero", "one", "two", "three"]
    records = [
        {"audio_filepath": "call.wav", "offset": at, "duration": 1.0, "text": word} for at, word in enumerate(words)
    ]
    dataset = prepare(jsonl(tmp_path / "m.jsonl", *records), tmp_path / "out")
    assert heard(dataset) == {"zero": 200, "one": 300, "two": 400, "three": 500}
    assert dataset.splits["train"].numbers("samples").tolist() == [RATE] * 4
    assert set(texts(dataset)) == {f"call.wav#t={at},{at + 1}" for at in range(4)}
    assert len(decoded) == 1
    table = "file,start,end,text\ncall.wav,1.5,2,half\ncall.wav,3.0,,rest\n"
    (tmp_path / "m.csv").write_text(table)
    dataset = prepare(tmp_path / "m.csv", tmp_path / "csv")
    assert heard(dataset) == {"half": 300, "rest": 500}


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"duration": 3.0}, DURATION),
        ({"duration": 4.04}, None),  # rounded
        ({"duration": "nan"}, "invalid offset, duration, sampling rate or number of channels"),
        ({"duration": -1}, "invalid offset, duration, sampling rate or number of channels"),
        ({"offset": 3.5, "duration": 1.0}, "outside its recording"),
        ({"offset": 4.0}, "outside its recording"),
        ({"offset": 3.0, "duration": 0}, "invalid offset, duration, sampling rate or number of channels"),
        ({"offset": 3.0, "duration": 1.02}, None),
        ({"start": 1, "end": 1}, "invalid offset, duration, sampling rate or number of channels"),
        ({"start_time": 1, "end_time": 2}, DURATION),
        ({"begin": 1.5, "end": 2, "duration": 4}, DURATION),
        ({"begin_time": 91.5, "end_time": 95.5}, None),
        ({"start_time": "09:30:00", "end_time": "09:30:04"}, None),
        ({"end": 1}, DURATION),
        ({"start": 1, "end": 2, "duration": 3}, "invalid offset, duration, sampling rate or number of channels"),
        ({"sampling_rate": 16000}, "another sampling rate than stated"),
        ({"sampling_rate": RATE, "num_channels": 1, "duration": 4}, None),
        ({"num_channels": 2}, "another number of channels than stated"),
        ({"channel": 1}, "no such channel"),
    ],
)
def test_what_a_manifest_states_is_compared_with_the_file(
    tmp_path: Path, stated: dict[str, Any], reason: str | None
) -> None:
    write(tmp_path / "call.wav", CALL)
    write(tmp_path / "good.wav", tone(0.5))
    records = {"file": "call.wav", "text": "a", **stated}, {"file": "good.wav", "text": "b"}
    dataset = prepare(jsonl(tmp_path / "m.jsonl", *records), tmp_path / "out")
    assert list(bad(tmp_path / "out")) == [reason] * (reason is not None)
    assert dataset.splits["train"].rows == 1 + (reason is None)
    if reason == DURATION:
        assert prepare(tmp_path / "m.jsonl", tmp_path / "all", "--ignore-durations").splits["train"].rows == 2


def kaldi(path: Path, **files: str) -> Path:
    write(path / "wav" / "call.wav", np.stack([CALL, CALL[::-1]], 1))
    write(path / "wav" / "other.wav", CALL)
    for name, content in {"wav.scp": "call wav/call.wav\nother wav/other.wav\n", **files}.items():
        (path / name.replace("_scp", ".scp")).write_text(content)
    return path


def test_a_kaldi_directory_gives_segments_texts_and_speakers(tmp_path: Path) -> None:
    source = kaldi(
        tmp_path / "in",
        segments="ann-1 call 0 1\nann-2 call 1.0 2.0\nbob-1 other 3 -1\nbob-2 lost 0 1\nbob-3 other 2 1\n",
        text="ann-1\tyes it  is\nann-2 no\nbob-1 maybe\nbob-9 nothing\n",
        utt2spk="ann-1 ann\nann-2 ann\nbob-1 bob\n",
        reco2file_and_channel="call call A\n",
        reco2dur="call 4.0\nother 4.01\nthird x\n",
    )
    dataset = prepare(source, tmp_path / "out")
    assert texts(dataset) == {"ann-1": "yes it is", "ann-2": "no", "bob-1": "maybe"}
    assert heard(dataset) == {"yes it is": 200, "no": 300, "maybe": 500}
    assert [dataset.splits["train"].value("speaker", row) for row in range(3)] == ["ann", "ann", "bob"]
    assert bad(tmp_path / "out") == {
        "recording not in wav.scp": ["bob-2 (lost)"],
        "invalid duration in reco2dur": ["third (x)"],
        "invalid start or end": ["bob-3 (other 2 1: start 2, end 1)"],
        "text without an utterance in wav.scp or segments": ["bob-9"],
    }
    plain = kaldi(tmp_path / "plain", text="call all of it\nother this too\n")
    assert texts(prepare(plain / "wav.scp", tmp_path / "out2")) == {"call": "all of it", "other": "this too"}


def test_commands_of_kaldi_are_not_run(tmp_path: Path) -> None:
    for entry in (f"touch {tmp_path}/ran |", "raw.ark:17"):
        source = kaldi(tmp_path / "in", wav_scp=f"call {entry}\n", text="call yes\n")
        with pytest.raises(DataError, match=r"wav.scp: expected audio files, got a command or an archive \(call "):
            prepare(source, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def cut(**changes: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": "call.wav"}
    other = {"type": "file", "channels": [1], "source": "back.wav"}
    recording = {"id": "call", "sources": [source, other], "sampling_rate": RATE, "num_samples": 4 * RATE}
    spoken = {"id": "s1", "recording_id": "call", "start": 0.0, "duration": 2.0, "text": "yes", "speaker": "ann"}
    whole = {"id": "cut-1", "start": 1.0, "duration": 2.0, "channel": 0, "supervisions": [spoken]}
    return {**whole, "recording": recording | {"duration": 4.0}, "type": "MonoCut"} | changes


def test_supervisions_of_lhotse_cuts_are_clips(tmp_path: Path) -> None:
    write(tmp_path / "call.wav", CALL)
    write(tmp_path / "back.wav", CALL[::-1])
    two = [
        {"id": "s2", "start": 0.0, "duration": 1.0, "text": "second", "speaker": "bob"},
        {"id": "s3", "start": 1.0, "duration": 1.0, "text": "third", "speaker": "cat"},
    ]
    right = [{"id": "s4", "start": 0.0, "duration": 1.0, "channel": 1, "text": "right"}]
    wrong = cut()["recording"] | {"duration": 9.0}
    cuts = [
        cut(),
        cut(id="cut-2", supervisions=two),
        cut(id="cut-3", start=0.0, channel=1, supervisions=right),
        cut(id="cut-4", start=0.5, recording=wrong),
        cut(id="cut-5", supervisions=[]),
        cut(id="cut-6", supervisions=[two[0] | {"start": 1.5}]),
        cut(id="cut-7", type="MixedCut"),
        cut(id="cut-8", start=3.5),
        cut(id="cut-9", recording=None),
        cut(
            id="cut-10",
            recording=cut()["recording"] | {"sources": [{"type": "command", "channels": [0], "source": "x"}]},
        ),
    ]
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(each) + "\n" for each in cuts).encode()))
    dataset = prepare(tmp_path, tmp_path / "out")
    assert texts(dataset) == {"cut-1": "yes", "s2": "second", "s3": "third", "cut-3": "right"}
    assert heard(dataset) == {"yes": pytest.approx(350, abs=60), "second": 300, "third": 400, "right": 500}
    assert dataset.splits["train"].numbers("samples").tolist() == [2 * RATE, RATE, RATE, RATE]
    assert dataset.splits["train"].value("speaker", 0) == "ann"
    assert {reason: names[0].partition(" ")[0] for reason, names in bad(tmp_path / "out").items()} == {
        DURATION: "cut-4",
        "cut without supervisions": "cut-5",
        "supervision outside its cut": "cut-6",
        "cut of several recordings or channels": "cut-7",
        "outside its recording": "cut-8",
        "not a cut of one recording": "cut-9",
        "recording that is not a file": "cut-10",
    }


def test_a_damaged_recording_is_a_reason_for_each_of_its_segments(tmp_path: Path) -> None:
    write(tmp_path / "call.wav", CALL)
    (tmp_path / "call.wav").write_bytes((tmp_path / "call.wav").read_bytes()[:-4])
    write(tmp_path / "good.wav", tone(0.5))
    records = [{"file": "call.wav", "offset": at, "duration": 1, "text": "a"} for at in range(3)]
    prepare(jsonl(tmp_path / "m.jsonl", *records, {"file": "good.wav", "text": "b"}), tmp_path / "out")
    assert bad(tmp_path / "out") == {"truncated": [f"call.wav#t={at},{at + 1}" for at in range(3)]}


def test_an_interruption_within_a_recording_loses_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "call.wav", CALL)
    records = [{"file": "call.wav", "offset": at / 4, "duration": 0.25, "text": f"t{at}"} for at in range(16)]
    source = jsonl(tmp_path / "m.jsonl", *records)
    straight = prepare(source, tmp_path / "straight")
    monkeypatch.setattr("data_prep.workspace.resumable_rows.SHARD_BYTES", 3000)
    decoded = ClipDecoder._decoded
    calls = []

    def interrupt_ninth_call(self: ClipDecoder, clip: Any, recording: Any) -> Any:
        calls.append(clip.name)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return decoded(self, clip, recording)

    once = ClipDecoder.__call__
    monkeypatch.setattr(ClipDecoder, "__call__", lambda self, clips: [once(self, [clip])[0] for clip in clips])
    monkeypatch.setattr(ClipDecoder, "_decoded", interrupt_ninth_call)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "killed")
    assert heard(prepare(source, tmp_path / "killed")) == heard(straight)
