"""Records are read back unchanged, by row and by sample."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_prep.workspace import tokenizer
from pipeline.dataset import records
from pipeline.dataset.manifest import Dataset, publish
from pipeline.dataset.records import RecordSplit, RecordWriter
from pipeline.errors import DataError
from pipeline.files import sha256

ROWS = [
    ([5, 6], "five six", [[1, 2, 3], [1]], ["a b c", "a"]),
    ([7], "seven", [[4, 4]], ["d d"]),
    ([8, 9, 10], "eight", [[2], [3], [5, 6, 7, 8]], ["b", "c", "e f g h"]),
    ([], "", [[9]], ["i"]),
]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Create a dataset with one split of two shards in three record batches."""
    monkeypatch.setattr(records, "BATCH_ROWS", 2)
    (prepared := tmp_path / ".pairs.partial").mkdir()
    shards = []
    for index, rows in enumerate((ROWS[:3], ROWS[3:])):
        columns = {"source": pa.list_(pa.uint16()), "text": pa.string()}
        writer = RecordWriter(prepared / f"train-{index:05d}.arrow", columns, np.uint16)
        for source, text, targets, references in rows:
            writer.add({"source": source, "text": text}, targets, references)
        shards.append(writer.close()._asdict())
    vocabularies = []
    for name in ("tokenizer.json", "source_tokenizer.json"):
        (tokenizer.byte([])).save(str(file := prepared / name))
        described = {"file": name, "size": file.stat().st_size, "sha256": sha256(file)}
        vocabularies.append({"tokenizer": described, "vocab_size": 257, "eos": 256})
    entry = {"rows": 4, "samples": 7, "tokens": 20, "bytes": 30, "shards": shards}
    publish(
        prepared,
        tmp_path / "pairs",
        {"kind": "pairs", "splits": {"train": entry}, "source": vocabularies[1]} | vocabularies[0],
    )
    return Dataset.open(tmp_path / "pairs", kind="pairs")


def test_rows_and_samples_read_as_they_were_written(dataset: Dataset) -> None:
    split = pickle.loads(pickle.dumps(dataset.splits["train"]))
    samples = [(row, target) for row, (_, _, targets, _) in enumerate(ROWS) for target in targets]
    assert split.samples == len(samples)
    for sample, (row, target) in enumerate(samples):
        assert split.row_of(sample) == row
        assert split.target(sample).tolist() == target
    for row, (source, text, _, references) in enumerate(ROWS):
        assert split.value("source", row).tolist() == source
        assert split.value("text", row) == text
        assert split.references(row) == references
    assert split.target_lengths.tolist() == [len(target) for _, target in samples]
    assert split.lengths("source").tolist() == [len(source) for source, *_ in ROWS]
    assert split.first_samples.tolist() == [0, 2, 3, 6, 7]


def test_shards_count_tokens_including_eos(dataset: Dataset) -> None:
    assert [(shard.rows, shard.tokens) for shard in dataset.splits["train"].shards] == [(3, 18), (1, 2)]


def test_a_dataset_has_the_sizes_of_both_vocabularies(dataset: Dataset) -> None:
    assert dataset.facts.known() == {"vocab_size": 257, "source_vocab_size": 257}
    assert {name: path.name for name, path in dataset.tokenizers.items()} == {
        "tokenizer.json": "tokenizer.json",
        "source_tokenizer.json": "source_tokenizer.json",
    }


@pytest.mark.parametrize("row", [-1, 4])
@pytest.mark.parametrize("name", ["text", "source"])
def test_rows_out_of_range_are_rejected(dataset: Dataset, row: int, name: str) -> None:
    with pytest.raises(IndexError, match=f"row {row} "):
        dataset.splits["train"].value(name, row)


@pytest.mark.parametrize("sample", [-1, 7])
def test_samples_out_of_range_are_rejected(dataset: Dataset, sample: int) -> None:
    with pytest.raises(IndexError, match=f"{sample} is outside of the 7"):
        dataset.splits["train"].target(sample)


def test_a_changed_source_tokenizer_is_detected(dataset: Dataset) -> None:
    file = dataset.path / "source_tokenizer.json"
    file.write_text(file.read_text().replace("<eos>", "<EOS>"))
    with pytest.raises(DataError, match="source_tokenizer"):
        dataset.verify()


def test_shards_with_other_columns_are_rejected(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="'image'"):
        dataset.splits["train"].value("image", 0)


@pytest.mark.parametrize("kind", ["poems", None])
def test_an_unknown_kind_is_rejected(dataset: Dataset, kind: str | None) -> None:
    path = dataset.path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": kind}))
    with pytest.raises(DataError, match="expected a kind among"):
        Dataset.open(dataset.path)


def test_a_dataset_of_another_kind_is_rejected(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="expected kind 'tokens'"):
        Dataset.open(dataset.path, kind="tokens")


def test_numbers_of_rows_read_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BATCH_ROWS", 2)
    writer = RecordWriter(tmp_path / "train.arrow", {"label": pa.int16()}, np.uint16)
    for label in (7, -3, 300):
        writer.add({"label": label}, [[1]], ["a"])
    split = RecordSplit(tmp_path, "train", 3, 3, 6, 6, (writer.close(),))
    assert split.numbers("label").tolist() == [7, -3, 300]
    assert split.numbers("label").dtype == split.target_lengths.dtype == split.first_samples.dtype == np.int64
    assert split.value("label", 1) == -3
    with pytest.raises(DataError, match="'width'"):
        split.numbers("width")
    wrong = RecordSplit(tmp_path, "train", 4, 3, 6, 6, split.shards)
    with pytest.raises(DataError, match="'train': expected 4 rows, got 3"):
        wrong.value("label", 0)
