"""The layouts of published corpora and of folders of splits are read, with the splits that they have."""

import json
import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, DataError
from tests.unit.data_prep.audio.recordings import bad, prepare, report, speakers, texts, tone, write


def test_ljspeech_names_files_by_their_identifier(tmp_path: Path) -> None:
    write(tmp_path / "lj" / "wavs" / "LJ1.wav", tone(0.3))
    write(tmp_path / "lj" / "wavs" / "LJ3.wav", tone(0.4))
    write(tmp_path / "lj" / "a" / "LJ4.wav", tone(0.4))
    write(tmp_path / "lj" / "b" / "LJ4.wav", tone(0.4))
    lines = ['LJ1|Dr. "Who|Doctor  "Who', "LJ2|lost|lost", "LJ3|left|or right|or right", "LJ4|two|two"]
    (tmp_path / "lj" / "metadata.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n")
    dataset = prepare(tmp_path / "lj", tmp_path / "out")
    assert texts(dataset) == {"LJ1.wav": 'Doctor "Who'}
    assert bad(tmp_path / "out") == {
        "no such file": [f"{tmp_path}/lj/metadata.csv:2 (LJ2)"],
        "another number of fields than the first line": [f"{tmp_path}/lj/metadata.csv:3"],
        "several files of this name": [f"{tmp_path}/lj/metadata.csv:4 (LJ4)"],
    }


def librispeech(path: Path, *chapters: str) -> None:
    for at, chapter in enumerate(chapters):
        folder = path / chapter
        name = "-".join(folder.parts[-2:])
        write(folder / f"{name}-0000.flac", tone(0.3, 300 + at))
        (folder / f"{name}.trans.txt").write_text(f"{name}-0000 NORTHANGER ABBEY\n{name}-0001 LOST\n")


def test_librispeech_has_its_splits_in_folders(tmp_path: Path) -> None:
    librispeech(tmp_path / "one", "19/198")
    write(tmp_path / "one" / "19" / "198" / "19-198-0009.flac", tone(0.3))
    dataset = prepare(tmp_path / "one", tmp_path / "out")
    assert texts(dataset) == {"19-198-0000.flac": "NORTHANGER ABBEY"}
    assert speakers(dataset) == ["19"]
    assert bad(tmp_path / "out") == {"no such file": [f"{tmp_path}/one/19/198/19-198.trans.txt:2 (19-198-0001)"]}
    assert report(tmp_path / "out")["left_out"]["audio file without a transcript"]["count"] == 1
    librispeech(tmp_path / "all", "train-clean-100/1/2", "train-other-500/3/4", "dev-clean/5/6", "test-clean/7/8")
    dataset = prepare(tmp_path / "all", tmp_path / "out2")
    assert {name: speakers(dataset, name) for name in dataset.splits} == {
        "train": ["1", "3"],
        "validation": ["5"],
        "test": ["7"],
    }


def test_speech_commands_has_labels_in_folders_and_lists_of_its_splits(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for at, name in enumerate(["yes/a_nohash_0", "no/a_nohash_0", "yes/b_nohash_0", "yes/c_nohash_0"]):
        write(source / f"{name}.wav", tone(0.3, 300 + at))
    write(source / "_background_noise_" / "pink.wav", tone(2.0))
    (source / "validation_list.txt").write_text("yes/b_nohash_0.wav\n")
    (source / "testing_list.txt").write_text("yes/c_nohash_0.wav\nno/d_nohash_0.wav\n")
    dataset = prepare(source, tmp_path / "out")
    assert dataset.manifest["audio"]["labels"] == ["no", "yes"]
    assert texts(dataset) == {"no/a_nohash_0.wav": "no", "yes/a_nohash_0.wav": "yes"}
    assert texts(dataset, "validation") == {"yes/b_nohash_0.wav": "yes"}
    assert texts(dataset, "test") == {"yes/c_nohash_0.wav": "yes"}
    assert speakers(dataset, "test") == ["c"]
    assert bad(tmp_path / "out") == {"no such file": ["no/d_nohash_0.wav (testing_list.txt)"]}
    assert report(tmp_path / "out")["left_out"]["not in the folder of a word"]["first"] == [
        f"{source}/_background_noise_/pink.wav"
    ]


def test_vctk_has_a_text_for_each_recording_of_two_microphones(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name in ("p225/p225_001_mic1", "p225/p225_001_mic2", "p226/p226_001_mic1", "s5/s5_001_mic1"):
        write(source / "wav48_silence_trimmed" / f"{name}.flac", tone(0.3))
    for name, text in (
        ("p225/p225_001", "Bring the six spoons.\n"),
        ("p226/p226_001", "Give her these things."),
        ("p226/p226_002", "-"),
    ):
        (source / "txt" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "txt" / f"{name}.txt").write_text(text)
    dataset = prepare(source, tmp_path / "out")
    assert texts(dataset) == {
        "p225_001_mic1.flac": "Bring the six spoons.",
        "p226_001_mic1.flac": "Give her these things.",
    }
    assert speakers(dataset) == ["p225", "p226"]
    assert bad(tmp_path / "out") == {"transcript without an audio file": [f"{source}/txt/p226/p226_002.txt"]}
    left_out = report(tmp_path / "out")["left_out"]
    assert {reason: each["count"] for reason, each in left_out.items()} == {
        "another microphone": 1,
        "audio file without a transcript": 1,
    }


def test_common_voice_has_a_table_for_each_split_and_its_files_in_clips(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for at, name in enumerate("abcd"):
        write(source / "clips" / f"{name}.mp3", tone(0.5, 300 + at))
    head = "client_id\tpath\tsentence\tage\n"
    (source / "train.tsv").write_text(f'{head}ann\ta.mp3\t"Yes, please.\t\nann\tb.mp3\tNo  no\t30\n')
    (source / "dev.tsv").write_text(f"{head}bob\tc.mp3\tMaybe\t\n")
    (source / "test.tsv").write_text(f"{head}cat\td.mp3\tYes\t\ncat\tyes\n")
    (source / "validated.tsv").write_text(f"{head}cat\td.mp3\tYes\t\n")
    dataset = prepare(source, tmp_path / "out")
    assert texts(dataset) == {"a.mp3": '"Yes, please.', "b.mp3": "No no"}
    assert texts(dataset, "validation") == {"c.mp3": "Maybe"}
    assert texts(dataset, "test") == {"d.mp3": "Yes"}
    assert speakers(dataset) == ["ann", "ann"]
    assert bad(tmp_path / "out") == {"another number of fields than the header": [f"{source}/test.tsv:3"]}
    assert report(tmp_path / "out")["left_out"] == {
        "table of no split": {"count": 1, "first": [f"{source}/validated.tsv"]}
    }
    dataset = prepare(source / "dev.tsv", tmp_path / "one")
    assert texts(dataset) == {"c.mp3": "Maybe"}


def test_nemo_manifests_are_named_json_but_hold_a_record_per_line(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for at, split in enumerate(["train", "dev", "test"]):
        write(source / f"{split}.wav", tone(0.5, 300 + at))
        record = {"audio_filepath": f"{split}.wav", "duration": 0.5, "text": split}
        (source / f"{split}_manifest.json").write_text(json.dumps(record) + "\n")
    dataset = prepare(source, tmp_path / "out")
    names = {"train": "train", "validation": "dev", "test": "test"}
    assert {split: texts(dataset, split) for split in dataset.splits} == {
        split: {f"{name}.wav": name} for split, name in names.items()
    }


@pytest.mark.parametrize("top", [False, True])
def test_folders_of_splits_are_the_splits(tmp_path: Path, top: bool) -> None:
    source = tmp_path / "in"
    for at, name in enumerate(["train/yes_0", "train/no_0", "Val/yes_1", "test/no_1"]):
        write(source / f"{name}.wav", tone(0.3, 300 + at))
    write(source / ".ipynb_checkpoints" / "yes_0.wav", tone(0.3))
    named = prepare(source, tmp_path / "out", "--pattern", "{label}_{index}")
    lines = ["file_name,label", *(f"{name}.wav,{name.split('/')[1][:-2]}" for name in ("train/yes_0", "train/no_0"))]
    if top:
        (source / "metadata.csv").write_text("\n".join([*lines, "Val/yes_1.wav,yes", "test/no_1.wav,no"]) + "\n")
    else:
        for split in ("train", "Val", "test"):
            inside = [f"{path.name},{path.stem[:-2]}" for path in sorted((source / split).glob("*.wav"))]
            (source / split / "metadata.csv").write_text("\n".join(["file_name,label", *inside]) + "\n")
    for dataset in (named, prepare(source, tmp_path / "metadata")):
        assert texts(dataset) == {"train/yes_0.wav": "yes", "train/no_0.wav": "no"}
        assert texts(dataset, "validation") == {"Val/yes_1.wav": "yes"}
        assert texts(dataset, "test") == {"test/no_1.wav": "no"}
    with pytest.raises(ConfigError, match=r"--test=.*: the training source has a test split of its own"):
        prepare(source, tmp_path / "both", "--pattern", "{label}_{index}", "--test", str(source / "test"))


def test_fields_of_paths_divide_folders_of_splits_where_conditions_do(tmp_path: Path) -> None:
    for name in ("train/yes_0", "train/no_0", "test/yes_1"):
        write(tmp_path / "in" / f"{name}.wav", tone(0.3))
    pattern = ["--pattern", "{part}/{label}_{index}", "--test-where", "part=test"]
    dataset = prepare(tmp_path / "in", tmp_path / "out", *pattern)
    assert texts(dataset, "test") == {"test/yes_1.wav": "yes"}


def test_a_class_with_the_name_of_a_split_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "in" / "train" / "a.wav", tone(0.3))
    write(tmp_path / "in" / "noise" / "b.wav", tone(0.3))
    prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{label}/{index}")
    assert report(tmp_path / "out")["noted"] == {"label with the name of a split": {"count": 1, "first": ["train"]}}


def test_two_tables_of_one_split_are_an_error(tmp_path: Path) -> None:
    for name in ("train.csv", "train.tsv", "test.csv"):
        (tmp_path / name).write_text("path\n")
    with pytest.raises(DataError, match=r"train.tsv and .*train.csv are both the train split"):
        prepare(tmp_path, tmp_path / "out")


def test_names_of_other_bytes_than_utf_8_are_read_and_shown_with_escapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "good_0.wav", tone(0.3))
    for name in (b"caf\xe9_1.wav", b"caf\xe9.wav"):
        (tmp_path / "in" / os.fsdecode(name)).write_bytes((tmp_path / "in" / "good_0.wav").read_bytes())
    dataset = prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{label}_{index}")
    assert texts(dataset) == {"good_0.wav": "good", r"caf\udce9_1.wav": r"caf\udce9"}
    assert r"caf\udce9.wav" in capsys.readouterr().out


def test_what_is_beside_the_folders_of_splits_is_named(tmp_path: Path) -> None:
    for name in ("train/yes_0", "test/yes_1", "extra/yes_2"):
        write(tmp_path / "in" / f"{name}.wav", tone(0.3))
    prepare(tmp_path / "in", tmp_path / "out", "--pattern", "{label}_{index}")
    assert report(tmp_path / "out")["left_out"] == {
        "beside the folders of the splits": {"count": 1, "first": [f"{tmp_path}/in/extra"]}
    }
