"""Manifests as other programs write them: byte order marks, quotation marks, other delimiters, Unicode forms."""

import json
import os
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.audio.clips import normalized
from pipeline.errors import DataError
from tests.unit.data_prep.audio.recordings import bad, prepare, report, texts, tone, write

WANTED = {"a.wav": "one two", "b.wav": "three"}


def sounds(path: Path, *names: str) -> None:
    for at, name in enumerate(names or WANTED):
        write(path / name, tone(0.3, 300 + at))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "\ufeffaudio_filepath,text\na.wav,one two\nb.wav,three\n"),
        ("m.csv", "audio_filepath;text\r\na.wav;one two\r\nb.wav;three\r\n"),
        ("m.json", '[{"audio": {"path": "a.wav"}, "text": "one two"}, {"path": "b.wav", "text": "three"}]'),
        ("m.csv", "path|text\na.wav|one two\nb.wav|three\n"),
        ("m.txt", "path\ttext\na.wav\tone two\nb.wav\tthree\n"),
        ("m.json", '{"audio_filepath": "a.wav", "text": "one two"}\n{"audio_filepath": "b.wav", "text": "three"}\n'),
        ("m.json", '[{"path": "a.wav", "text": "one two"}, {"path": "b.wav", "text": "three"}]'),
        ("m.jsonl", '\ufeff{"path": "a.wav", "text": "one two"}\n{"path": "b.wav", "text": "three"}\n'),
        ("m.csv", "path,sentence\na.wav, one\u00a0two \nb.wav,three\n"),
    ],
)
def test_tables_and_records_are_recognised_by_their_content(tmp_path: Path, name: str, content: str) -> None:
    sounds(tmp_path)
    (tmp_path / name).write_bytes(content.encode())
    assert texts(prepare(tmp_path / name, tmp_path / "out")) == WANTED
    assert bad(tmp_path / "out") == {}


def test_a_quotation_mark_and_a_surplus_comma_do_not_reach_into_other_fields(tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "m.tsv").write_text('path\ttext\na.wav\t"one two\nb.wav\tthree\nc.wav\t"four"\n')
    found = texts(prepare(tmp_path / "m.tsv", tmp_path / "tsv"))
    assert found == {"a.wav": '"one two', "b.wav": "three", "c.wav": '"four"'}
    (tmp_path / "m.csv").write_text('path,text\na.wav,one two\nb.wav,three, or four\nc.wav,"three, or four"\n')
    found = texts(prepare(tmp_path / "m.csv", tmp_path / "csv"))
    assert found == {"a.wav": "one two", "c.wav": "three, or four"}
    assert bad(tmp_path / "csv") == {"another number of fields than the header": [f"{tmp_path}/m.csv:3"]}


def test_utf_16_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    sounds(tmp_path)
    (tmp_path / "m.csv").write_bytes("path,text\na.wav,one two\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"m.csv: expected UTF-8, got UTF-16. Convert it: iconv -f UTF-16"):
        prepare(tmp_path / "m.csv", tmp_path / "out")


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_names_and_transcripts_are_compared_in_one_normal_form(tmp_path: Path, stored: str) -> None:
    named = {"NFC": "NFD", "NFD": "NFC"}[stored]
    folder, sound = (unicodedata.normalize(stored, name) for name in ("Olé", "café.wav"))
    write(tmp_path / folder / sound, tone(0.3))
    write(tmp_path / folder / "b.wav", tone(0.3))
    written = unicodedata.normalize(named, "Olé/café.wav")
    records = [
        {"path": written, "text": unicodedata.normalize("NFD", "café olé")},
        {"path": f"{unicodedata.normalize(named, 'Olé')}\\b.wav ", "text": "café  olé\n"},
        {"path": f"{folder}/{sound}", "text": "café olé"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    dataset = prepare(tmp_path / "m.jsonl", tmp_path / "out")
    assert set(texts(dataset).values()) == {unicodedata.normalize("NFC", "café olé")}
    assert dataset.target.size == len(["<eos>", "<unk>"]) + len(set("café olé"))
    assert report(tmp_path / "out")["left_out"] == {"clip listed twice": {"count": 1, "first": [f"{folder}/{sound}"]}}


def test_labels_and_conditions_are_compared_in_one_normal_form(tmp_path: Path) -> None:
    for number, form in enumerate(("NFC", "NFD", "NFC", "NFD")):
        label, speaker = (unicodedata.normalize(form, name) for name in ("thé", "José"))
        write(tmp_path / "in" / f"{label}_{speaker if number > 1 else 'ann'}_{number}.wav", tone(0.3))
    where = ["--test-where", f"speaker={unicodedata.normalize('NFD', 'José')}"]
    dataset = prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{label}_{speaker}_{index}", *where)
    assert dataset.manifest["audio"]["labels"] == ["thé"]
    assert dataset.splits["test"].rows == 2


def test_a_text_is_empty_where_nothing_in_it_is_visible() -> None:
    for text in ("", "  ", "\u200b", "\u00a0", "\ufeff \u200b\u200e", "\x00"):
        assert normalized(text).strip("\x00") == ""
    assert normalized(" a\u00a0 b\t\u0301c\n") == "a b \u0301c"
    joined = "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # the non-joiner is a letter's form in Persian
    assert normalized(joined) == joined


def test_blank_transcripts_are_bad_records(tmp_path: Path) -> None:
    names = [f"{number}.wav" for number in range(6)]
    sounds(tmp_path, *names)
    values = ["one", "  ", "", None, "\u200b", 7]
    records = [{"path": name, "text": value} for name, value in zip(names, values, strict=True)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert texts(prepare(tmp_path / "m.jsonl", tmp_path / "out")) == {"0.wav": "one", "5.wav": "7"}
    assert bad(tmp_path / "out") == {"no text": names[1:5]}


def test_parquet_holds_names_or_the_files_themselves(tmp_path: Path) -> None:
    sounds(tmp_path)
    pq.write_table(pa.table({"path": list(WANTED), "text": list(WANTED.values())}), tmp_path / "names.parquet")
    assert texts(prepare(tmp_path / "names.parquet", tmp_path / "out")) == WANTED
    held = [{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in WANTED]
    pq.write_table(pa.table({"audio": held, "text": list(WANTED.values())}), tmp_path / "bytes.parquet")
    assert texts(prepare(tmp_path / "bytes.parquet", tmp_path / "out2")) == WANTED


def test_a_name_that_no_file_can_have_is_a_bad_record(tmp_path: Path) -> None:
    sounds(tmp_path)
    names = ["é" * 200 + ".wav", "a/" * 3000 + "b.wav"]
    lines = ["path,text", "a.wav,one two", "b.wav,three", *(f"{name},four" for name in names)]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    assert texts(prepare(tmp_path / "m.csv", tmp_path / "out")) == WANTED
    assert report(tmp_path / "out")["bad"]["cannot be read"]["count"] == len(names)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    sounds(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "m.csv").write_text("path,text\na.wav,one two\nb.wav,three\npipe.wav,four\n")
    assert texts(prepare(tmp_path / "m.csv", tmp_path / "out")) == WANTED
    assert bad(tmp_path / "out") == {"cannot be read": ["pipe.wav (not a regular file)"]}
