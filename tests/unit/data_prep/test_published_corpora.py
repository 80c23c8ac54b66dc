"""Prepared published corpora have the counts given in the literature."""

import os
from pathlib import Path

import pytest

from data_prep.text import command as text
from pipeline.dataset.manifest import Dataset

DATA = Path(os.environ.get("PIPELINE_DATA", Path(__file__).parents[4] / "shared" / "data"))
requires_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set PIPELINE_DATA")
FILES = {"train": "train", "validation": "valid", "test": "test"}  # names of the splits in the published files


def run(output: Path, *arguments: object) -> Dataset:
    """Prepare a dataset in this process and open it."""
    text.main([*map(str, arguments), "--output", str(output), "--workers", "1"])
    return Dataset.open(output)


@requires_data
@pytest.mark.data
def test_penn_treebank_has_its_published_counts(tmp_path: Path) -> None:
    given = [f"--{name}={DATA}/ptb/ptb.{file}.txt.xz" for name, file in FILES.items()]
    dataset = run(tmp_path / "ptb", *given, "--documents", "line", "--tokenizer", "word")
    assert [dataset.splits[name].tokens for name in FILES] == [929_589, 73_760, 82_430]
    assert dataset.target.size == 10_000


@requires_data
@pytest.mark.data
def test_wikitext_2_has_its_published_counts(tmp_path: Path) -> None:
    given = [f"--{name}={DATA}/wikitext2/wiki.{file}.tokens.xz" for name, file in FILES.items()]
    dataset = run(tmp_path / "wikitext2", *given, "--documents", "line", "--keep-empty", "--tokenizer", "word")
    assert [dataset.splits[name].tokens for name in FILES] == [2_088_628, 217_646, 245_569]
    assert dataset.target.size == 33_278


@requires_data
@pytest.mark.data
def test_tiny_shakespeare_is_split_at_nine_tenths(tmp_path: Path) -> None:
    options = ["--tokenizer", "character", "--cut", "tail", "--validation-share", 0.1, "--test-share", 0]
    dataset = run(tmp_path / "tiny", DATA / "tinyshakespeare" / "input.txt.xz", *options)
    assert {name: split.bytes for name, split in dataset.splits.items()} == {"train": 1_003_854, "validation": 111_540}
    assert dataset.target.size == 65 + 2
