"""Pairs of texts are read from every kind of source, split, filtered and written unchanged."""

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from data_prep.pairs import command as pairs
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError

SOURCES = [f"wort {n} und noch {n % 3}" for n in range(60)]
TARGETS = [f"word {n} and again {n % 3}" for n in range(60)]
Capture = pytest.CaptureFixture[str]


def prepare(output: Path, *arguments: object) -> Dataset:
    assert pairs.main([*map(str, arguments), "--output", str(output)]) == 0
    return Dataset.open(output, kind="pairs")


def texts(dataset: Dataset, split: str) -> list[tuple[str, list[str]]]:
    """Return the texts of every row, after checking that its tokens decode to them."""
    assert dataset.source is not None
    source, target = (Tokenizer.from_file(str(side.file)) for side in (dataset.source, dataset.target))
    found, rows = [], dataset.splits[split]
    for row in range(rows.rows):
        text, references = rows.value("text", row), rows.references(row)
        assert source.decode(rows.value("source", row)) == text
        samples = range(rows.first_samples[row], rows.first_samples[row + 1])
        assert [target.decode(rows.target(sample)) for sample in samples] == references
        found.append((text, references))
    return found


@pytest.fixture
def parallel(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "train.de", tmp_path / "train.en.gz"]
    files[0].write_text("\n".join(SOURCES) + "\n")
    files[1].write_bytes(gzip.compress(("\n".join(TARGETS) + "\n").encode()))
    return files


def test_lines_of_parallel_files_are_pairs(parallel: list[Path], tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "out", "--train", *parallel, "--validation", *parallel, "--test-share", 0)
    assert texts(dataset, "train") == [(one, [other]) for one, other in zip(SOURCES, TARGETS, strict=True)]
    assert list(dataset.splits) == ["train", "validation"]
    split = dataset.splits["train"]
    assert split.bytes == sum(len(text) + 1 for text in TARGETS)
    assert split.tokens == split.target_lengths.sum() + 60
    assert dataset.source == dataset.target  # one tokenizer for both


def test_splits_are_divided_by_the_source(parallel: list[Path], tmp_path: Path) -> None:
    dataset = prepare(tmp_path / "out", "--train", *parallel, "--validation-share", 0.2, "--test-share", 0.1)
    parts = [texts(dataset, name) for name in ("train", "validation", "test")]
    assert sorted(row for part in parts for row in part) == sorted(
        (one, [other]) for one, other in zip(SOURCES, TARGETS, strict=True)
    )
    again = prepare(tmp_path / "again", "--train", *parallel, "--validation-share", 0.2, "--test-share", 0.1)
    assert [texts(again, name) for name in ("train", "validation", "test")] == parts
    assert again.checksum == dataset.checksum


def test_words_and_their_pronunciations_are_grouped(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("READ  R EH D\nA  AH\nREAD  R IY D\nA  AH\n")
    options = ["--source-tokenizer", "character", "--target-tokenizer", "word", "--delimiter", "  ", "--group"]
    dataset = prepare(
        tmp_path / "out", "--train", tmp_path / "words", *options, "--test-share", 0, "--validation-share", 0
    )
    assert texts(dataset, "train") == [("READ", ["R EH D", "R IY D"]), ("A", ["AH"])]
    assert dataset.facts.known() == {"vocab_size": 2 + 5, "source_vocab_size": 2 + 4}


@pytest.mark.parametrize("targets", ["one", ["one", "two"]])
def test_records_hold_a_target_or_several(tmp_path: Path, targets: str | list[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"q": "why", "a": targets}) + "\n")
    fields = ["--source-field", "q", "--target-field", "a", "--tokenizer", "byte", "--group"]
    dataset = prepare(tmp_path / "out", "--train", file, *fields, "--test-share", 0, "--validation-share", 0)
    assert texts(dataset, "train") == [("why", [targets] if isinstance(targets, str) else targets)]


def test_a_hub_data_set_is_read_by_name_and_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    (tmp_path / "hub").mkdir()
    for split in ("train", "test"):
        rows = [{"id": n, "translation": {"de": f"{split} wort {n}", "en": f"{split} word {n}"}} for n in range(3)]
        (tmp_path / "hub" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = f"hub:{tmp_path / 'hub'}"
    fields = ["--source-field", "translation.de", "--target-field", "translation.en", "--tokenizer", "byte"]
    sources = ["--train", named, "--test", f"{named}::test", "--validation-share", 0]
    dataset = prepare(tmp_path / "out", *sources, *fields)
    for split in ("train", "test"):
        assert texts(dataset, split) == [(f"{split} wort {n}", [f"{split} word {n}"]) for n in range(3)]
    assert dataset.manifest["sources"] == []
    with pytest.raises(DataError, match=rf"3 of 3 pairs .*no texts in fields .*first {named}:0"):
        prepare(tmp_path / "wrong", "--train", named, "--tokenizer", "byte", "--test-share", 0, "--validation-share", 0)
    with pytest.raises(DataError, match=r"hub:.*nothing cannot be loaded"):
        prepare(tmp_path / "wrong", "--train", f"hub:{tmp_path / 'nothing'}")
    with pytest.raises(ConfigError, match="must be the only source of its split"):
        prepare(tmp_path / "wrong", "--train", named, named)


def test_unknown_tokens_are_counted(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "train").write_text("ab\tR IY\nba\tIY R\n")
    (tmp_path / "test").write_text("xab\tR OW OW\nzz\tIY\n")
    kinds = ["--source-tokenizer", "character", "--target-tokenizer", "word", "--validation-share", 0]
    dataset = prepare(tmp_path / "out", "--train", tmp_path / "train", "--test", tmp_path / "test", *kinds)
    assert "test: 2 sources, 2 targets, 6 tokens, 3 unknown in sources, 2 unknown in targets" in capsys.readouterr().out
    report = json.loads((dataset.path / "report.json").read_text())
    counted = {"test": {"sources": 3, "targets": 2}, "train": {"sources": 0, "targets": 0}}
    assert report["unknown_tokens"] == counted


def test_conversations_become_replies_and_duplicates_leave_training(tmp_path: Path, capsys: Capture) -> None:
    talks = [f"a{n} __eou__ b{n} __eou__ c{n} __eou__ d{n} __eou__" for n in range(3)]
    (tmp_path / "train").write_text("\n".join([talks[0], talks[1], talks[0], talks[2], "alone __eou__"]) + "\n")
    (tmp_path / "test").write_text(talks[2] + "\n")
    sources = ["--train", tmp_path / "train", "--test", tmp_path / "test", "--validation-share", 0]
    options = ["--dialogue", "__eou__", "--history", 2, "--tokenizer", "word", "--max-bad-share", 0.3]
    dataset = prepare(tmp_path / "out", *sources, *options)
    expected = [
        row
        for n in (0, 1)
        for row in [
            (f"a{n}", [f"b{n}"]),
            (f"a{n} __eou__ b{n}", [f"c{n}"]),
            (f"b{n} __eou__ c{n}", [f"d{n}"]),
        ]
    ]
    assert texts(dataset, "train") == expected
    assert dataset.splits["test"].rows == 3
    assert dataset.manifest["dialogue"] == {"mark": "__eou__", "history": 2}
    printed = capsys.readouterr().out
    assert "read 5 conversations" in printed
    assert f"1 x in another split too: dropped from training ({tmp_path / 'train'}:4)" in printed
    assert f"1 x duplicate: dropped from training ({tmp_path / 'train'}:3)" in printed
    assert "fewer than two turns" in printed


def test_the_mark_between_turns_is_one_token_of_any_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("".join(f"hello {n} __eou__ well {n} __eou__ yes __eou__\n" for n in range(9)))
    options = ["--dialogue", "__eou__", "--vocab-size", 270, "--test-share", 0, "--validation-share", 0]
    dataset = prepare(tmp_path / "out", "--train", tmp_path / "train", *options)
    assert dataset.target.size == 270
    mark = Tokenizer.from_file(str(dataset.target.file)).token_to_id("__eou__")
    assert [list(dataset.splits["train"].value("source", row)).count(mark) for row in range(4)] == [0, 1, 0, 1]


def test_long_pairs_are_dropped_from_training_only(parallel: list[Path], tmp_path: Path, capsys: Capture) -> None:
    long = [tmp_path / "a", tmp_path / "b"]
    long[0].write_text("short\n" + "x" * 50 + "\n")
    long[1].write_text("short\nshort\n")
    options = ["--tokenizer", "byte", "--max-length", 20, "--test-share", 0]
    dataset = prepare(tmp_path / "out", "--train", *long, "--validation", *long, *options)
    assert (dataset.splits["train"].rows, dataset.splits["validation"].rows) == (1, 2)
    assert "1 x longer than 20 tokens: dropped from training" in capsys.readouterr().out


def test_files_of_unequal_length_are_refused_with_both_counts(parallel: list[Path], tmp_path: Path) -> None:
    (tmp_path / "short").write_text("one\ntwo\n")
    for files, counts in (((parallel[0], tmp_path / "short"), "60.* 2"), ((tmp_path / "short", parallel[0]), "2.* 60")):
        with pytest.raises(DataError, match=f"has {counts.replace('.*', ' lines, but .* has')}. Line k of both"):
            prepare(tmp_path / "out", "--train", *files)
    assert not (tmp_path / "out").exists()


def test_bad_pairs_are_counted_and_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.tsv").write_bytes(b"good\tgut\n\tleer\nempty\t\nno tab\nb\xff\tc\n")
    options = ["--tokenizer", "byte", "--test-share", 0, "--validation-share", 0]
    with pytest.raises(DataError, match="4 of 5 pairs are invalid"):
        prepare(tmp_path / "out", "--train", tmp_path / "a.tsv", *options)
    dataset = prepare(tmp_path / "out", "--train", tmp_path / "a.tsv", *options, "--max-bad-share", 0.9)
    assert texts(dataset, "train") == [("good", ["gut"])]
    printed = capsys.readouterr().out
    for reason, line in (("empty source", 2), ("empty target", 3), ("no delimiter", 4), ("not UTF-8", 5)):
        assert f"a.tsv:{line}" in printed
        assert f"1 x {reason}" in printed


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--output", "x"], ConfigError, "expected one file with both sides, or two: .*, got none"),
        (["--train", "none.tsv"], DataError, "file none.tsv does not exist"),
        (["--train", "a", "b", "c"], DataError, "file a does not exist"),
        (["--train", "one.tsv", "one.tsv", "one.tsv"], ConfigError, "expected one file or two .* per split, got 3"),
        (
            ["--train", "a", "--test-share", "1"],
            ConfigError,
            "--test-share: expected a number .* below 1, got 1",
        ),
        (["--train", "a", "--source-tokenizer", "word"], ConfigError, "must be given together"),
        (["--train", "a", "--history", "0"], ConfigError, "--history: expected an integer of at least 1, got 0"),
        (["--train", "empty.de", "empty.en"], DataError, "no pair in empty.de, empty.en"),
        (["--train", "empty.tsv", "--test", "empty.tsv"], DataError, "no pair in empty.tsv. Check the files of --test"),
        (
            ["--train", "one.tsv", "--delimiter", ";"],
            DataError,
            "1 of 1 pairs are invalid .no delimiter ';': 1",
        ),
        (["--train", "one.tsv", "--test-share", "0.001"], DataError, "the test split is empty. Name files with --test"),
    ],
)
def test_a_mistake_is_a_clear_error(
    arguments: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty.de", "empty.en", "empty.tsv"):
        Path(name).touch()
    Path("one.tsv").write_text("one\teins\n")
    with pytest.raises(error, match=message):
        pairs.main(["--output", "out", *arguments])
    assert not (tmp_path / "out").exists()
