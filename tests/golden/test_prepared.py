"""The assignment of documents to splits, and trained tokenizers, are unchanged between versions."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from pipeline.cli import main
from pipeline.dataset.manifest import Dataset
from tests.golden.recorded import Golden

WORDS = [
    "the",
    "cat",
    "sees",
    "rain",
    "and",
    "hears",
    "a",
    "song",
    "of",
    "my",
    "aunt",
    "who",
    "eats",
    "warm",
    "bread",
    "in",
    "the",
    "rain",
]
DOCUMENTS = [" ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 4 + n % 5)) + f", {n}." for n in range(60)]
SHARES = ["--validation-share", "0.2", "--test-share", "0.1"]
WRITTEN = "the cats eat, and naïve aunts see 7 songs"


def prepare(kind: str, folder: Path, *arguments: str | int | Path) -> Dataset:
    assert main(["prepare", kind, *map(str, arguments), "--output", str(folder / "dataset")]) == 0
    return Dataset.open(folder / "dataset")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of sixty documents, one per line."""
    file = tmp_path_factory.mktemp("golden") / "corpus.txt"
    file.write_text("\n".join(DOCUMENTS) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("cut", ["hash", "tail"])
def test_the_split_of_a_document_is_unchanged(golden: Golden, corpus: Path, tmp_path: Path, cut: str) -> None:
    options = ["--documents", "line", "--tokenizer", "byte", "--workers", 1, "--cut", cut]
    dataset = prepare("text", tmp_path, corpus, *options, *SHARES)
    reader = Tokenizer.from_file(str(dataset.target.file))
    ids = {name: split.read(0, split.tokens) for name, split in dataset.splits.items()}
    ends = {name: np.flatnonzero(tokens == dataset.target.eos) for name, tokens in ids.items()}
    found = {name: [reader.decode(part) for part in np.split(ids[name], ends[name] + 1)] for name in ids}
    golden("prepared", f"text by {cut}", {name: found[name] for name in ("validation", "test")})


def test_the_split_of_a_pair_is_unchanged(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{text}\t{text[::-1]}\n" for text in DOCUMENTS), encoding="utf-8")
    dataset = prepare("pairs", tmp_path, "--train", tmp_path / "pairs.tsv", "--tokenizer", "byte", *SHARES)
    golden("prepared", "pairs", {name: texts(dataset, name, "text") for name in ("validation", "test")})


def texts(dataset: Dataset, split: str, column: str) -> list[str]:
    rows = dataset.splits[split]
    return [rows.value(column, row) for row in range(rows.rows)]


@pytest.mark.parametrize("kind", ["audio", "labels", "pixels", "captions"])
def test_the_split_of_a_record_is_unchanged(golden: Golden, request: pytest.FixtureRequest, kind: str) -> None:
    dataset = Dataset.open(request.getfixturevalue(f"tiny_{kind}_dataset"))
    golden("prepared", kind, {name: texts(dataset, name, "name") for name in ("validation", "test")})


def test_the_split_of_a_speaker_is_unchanged(golden: Golden, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "clips").mkdir()
    for n in range(40):
        soundfile.write(
            tmp_path / "clips" / f"yes_speaker{n % 9}_{n}.wav", np.sin(np.arange(1600) * (n + 1) / 50) / 2, 8000
        )
    options = ["--pattern", "{label}_{speaker}_{index}", "--by-speaker", "--rate", 8000, "--workers", 1]
    dataset = prepare("audio", tmp_path, tmp_path / "clips", *options, *SHARES)
    golden("prepared", "speakers", {name: sorted(set(texts(dataset, name, "speaker"))) for name in dataset.splits})


@pytest.mark.numeric
@pytest.mark.parametrize("kind", ["series", "trajectories", "recall", "text", "captions", "pixels", "music"])
def test_the_splits_of_a_dataset_are_unchanged(golden: Golden, request: pytest.FixtureRequest, kind: str) -> None:
    """Compare without files, their sizes and checksums, which depend on library versions."""
    manifest = json.loads((request.getfixturevalue(f"tiny_{kind}_dataset") / "dataset.json").read_text())
    splits = {name: {**split, "shards": len(split["shards"])} for name, split in manifest["splits"].items()}
    known = {key: manifest[key] for key in ("format", "kind", "vocab_size", "eos") if key in manifest}
    golden("prepared", f"dataset of {kind}", {"keys": sorted(manifest), **known, **splits}, within=1e-6)


@pytest.mark.parametrize("kind", ["byte", "character", "word", "bpe", "unigram"])
def test_a_trained_tokenizer_is_unchanged(golden: Golden, corpus: Path, tmp_path: Path, kind: str) -> None:
    """Compare the vocabulary, for bpe and unigram without single bytes.

    The library sums unigram scores in parallel and orders ties randomly, so its ids differ between runs.
    """
    size = ["--vocab-size", 300] if kind in ("bpe", "unigram") else []
    options = ["--documents", "line", "--tokenizer", kind, "--workers", 1, *size]
    dataset = prepare("text", tmp_path, corpus, *options, *SHARES)
    reader = Tokenizer.from_file(str(dataset.target.file))
    vocabulary, encoded = reader.get_vocab(), reader.encode(WRITTEN)
    pieces = [token for token in vocabulary if len(token) > 1 or kind in ("character", "word")]
    found = {
        "size": dataset.target.size,
        "eos": dataset.target.eos,
        "text": reader.decode(encoded.ids),
        "tokens": encoded.tokens,
        "ids": encoded.ids if kind != "unigram" else None,
        "learned": sorted(pieces, key=vocabulary.__getitem__ if kind != "unigram" else None),
    }
    golden("tokenizers", kind, found)
