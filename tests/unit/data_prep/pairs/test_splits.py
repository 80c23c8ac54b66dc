"""No source is in two splits after normalisation, and duplicates are counted and named."""

import json
import tempfile
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_prep.pairs import command as pairs
from data_prep.pairs.corpus import Corpus
from pipeline.dataset.manifest import Dataset

WORDS = st.sampled_from(["é", "É", "e\u0301", "E\u0301", "ab", "AB", "Ab", "İ", "ΟΣ", "x"])
SPACE = st.sampled_from([" ", "  ", "\u00a0", " \u2003"])
TEXT = st.lists(st.tuples(SPACE, WORDS), min_size=1, max_size=3).map(lambda parts: "".join(a + b for a, b in parts))
OPTIONS = [
    [],
    ["--lowercase"],
    ["--group"],
    ["--lowercase", "--group"],
    ["--deduplicate"],
    ["--lowercase", "--deduplicate"],
]


def same(text: str) -> str:
    return " ".join(normalize("NFC", text).split())


def corpus(folder: Path, *arguments: object) -> Corpus:
    options = pairs._parser().parse_args([*map(str, arguments), "--output", str(folder / "out")])
    pairs._check(options)
    return Corpus(options)


def units(found: Corpus) -> dict[str, list[str]]:
    """Return the normalised texts that decide the split, of each split."""
    for name in found.splits[:-1]:
        list(found.units(name, False))
    return {name: [same(unit.source) for unit in found.units(name, True)] for name in found.splits}


def assert_disjoint(splits: dict[str, list[str]]) -> None:
    home: dict[str, str] = {}
    for name, sources in splits.items():
        for source in sources:
            assert home.setdefault(source, name) == name, source


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=30), st.sampled_from(OPTIONS), st.booleans())
@settings(deadline=None)
def test_no_source_is_in_two_splits(rows: list[tuple[str, str]], options: list[str], lowercase: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in rows), encoding="utf-8")
        shares = ["--validation-share", 0.3, "--test-share", 0.3, *["--lowercase"] * lowercase]
        assert_disjoint(units(corpus(folder, folder / "a.tsv", *shares, *options)))


@given(st.lists(st.lists(TEXT, min_size=2, max_size=4), min_size=1, max_size=20), st.booleans())
@settings(deadline=None)
def test_no_conversation_is_in_two_splits(talks: list[list[str]], lowercase: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = ["".join(f"{turn} EOU " for turn in talk) for talk in talks]
        (folder / "a.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        options = ["--dialogue", "EOU", "--validation-share", 0.3, "--test-share", 0.3, *["--lowercase"] * lowercase]
        found = units(corpus(folder, folder / "a.txt", *options))
        assert_disjoint(found)
        assert all(len(set(sources)) == len(sources) for sources in found.values())


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=20), st.lists(TEXT, min_size=1, max_size=5), st.booleans())
@settings(deadline=None)
def test_given_splits_share_no_source_with_training_after_deduplication(
    rows: list[tuple[str, str]], held_out: list[str], lowercase: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in rows), encoding="utf-8")
        (folder / "b.tsv").write_text("".join(f"{one}\ttarget\n" for one in held_out), encoding="utf-8")
        options = ["--validation-share", 0.3, "--deduplicate", *["--lowercase"] * lowercase]
        found = units(corpus(folder, "--train", folder / "a.tsv", "--test", folder / "b.tsv", *options))
        assert_disjoint(found)
        assert len(found["test"]) == len(held_out)  # A given split is unchanged.


def test_sources_of_given_splits_are_noted_and_dropped_on_request(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("Cat\tKatze\nDog\tHund\ndog\thund\nbird\tVogel\n")
    (tmp_path / "test.tsv").write_text(" cat \tKater\n")
    given_files = ["--train", tmp_path / "train.tsv", "--test", tmp_path / "test.tsv", "--validation-share", 0]
    options = [*given_files, "--lowercase", "--tokenizer", "word", "--output"]
    for name, more, rows in (("noted", [], 4), ("dropped", ["--deduplicate"], 2)):
        pairs.main([*map(str, options), str(tmp_path / name), *more])
        assert Dataset.open(tmp_path / name).splits["train"].rows == rows
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("noted", "dropped")]
    expected = {"in another split too": f"{tmp_path}/train.tsv:1", "duplicate": f"{tmp_path}/train.tsv:3"}
    for reason, first in expected.items():
        counted = {"count": 1, "first": [first]}
        assert reports[0]["noted"][f"{reason} (add --deduplicate to drop it)"] == counted
        assert reports[1]["left_out"][f"{reason}: dropped from training"] == counted


@pytest.mark.parametrize("lowercase", [False, True])
def test_groups_merge_sources_that_are_equal_after_normalisation(tmp_path: Path, lowercase: bool) -> None:
    (tmp_path / "a.tsv").write_text("Café\tone\nCafe\u0301\ttwo\ncafé \tthree\nCAFÉ\tTwo\n", encoding="utf-8")
    options = ["--group", "--tokenizer", "byte", "--validation-share", "0", "--test-share", "0"]
    pairs.main([str(tmp_path / "a.tsv"), *options, *["--lowercase"] * lowercase, "--output", str(tmp_path / "out")])
    rows = Dataset.open(tmp_path / "out").splits["train"]
    found = {rows.value("text", row): rows.references(row) for row in range(rows.rows)}
    whole = {"Café": ["one", "two"], "café": ["three"], "CAFÉ": ["Two"]}
    assert found == ({"café": ["one", "two", "three"]} if lowercase else whole)


def test_prompts_to_a_lower_case_dataset_are_converted_by_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello You EOU Good Day EOU\n" * 3)
    options = [
        "--dialogue",
        "EOU",
        "--lowercase",
        "--tokenizer",
        "word",
        "--validation-share",
        "0",
        "--test-share",
        "0",
    ]
    pairs.main([str(tmp_path / "a.txt"), *options, "--output", str(tmp_path / "out")])
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.splits["train"].references(0) == ["good day"]
    tokenizer = Tokenizer.from_file(str(dataset.target.file))
    assert tokenizer.encode("HELLO you EOU Good").tokens == ["hello", "you", "EOU", "good"]


def test_a_group_without_two_targets_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "words").write_text("a\tAH\na(2)\tEY\n")
    options = ["--group", "--tokenizer", "byte", "--validation-share", "0", "--test-share", "0"]
    pairs.main([str(tmp_path / "words"), *options, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert f"1 x --group: no source has two targets: {tmp_path}/words" in printed
    assert f"for a pronouncing dictionary add --pronunciations: {tmp_path}/words:2" in printed
