"""Datasets are read back unchanged from disk, in any range, and missing or damaged files are detected."""

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_prep.workspace import tokenizer
from pipeline.dataset import tokens
from pipeline.dataset.manifest import SPLITS, Dataset, Vocabulary, publish
from pipeline.dataset.music import MusicSplit
from pipeline.dataset.records import RecordSplit
from pipeline.dataset.series import SeriesSplit
from pipeline.dataset.shard import record_batches, token_type
from pipeline.dataset.tokens import ShardWriter, TokenSplit
from pipeline.dataset.trajectories import TrajectorySplit
from pipeline.errors import DataError
from pipeline.files import replace_directory, sha256

LENGTHS = [[3, 1, 40, 2], [7], [1, 1, 25]]  # tokens of the rows of each shard
CONTINUED = {2, 4}  # rows, counted over all shards, whose document continues in the next row


def stream() -> np.ndarray:
    return np.arange(sum(map(sum, LENGTHS)), dtype=np.uint16) * 7 + 1


def document_starts() -> list[int]:
    ends = np.cumsum([length for shard in LENGTHS for length in shard])
    return [0] + [int(end) for row, end in enumerate(ends[:-1]) if row not in CONTINUED]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Create a dataset with one split of three shards in seven record batches."""
    monkeypatch.setattr(tokens, "BATCH_TOKENS", 5)
    (prepared := tmp_path / ".small.partial").mkdir()
    shards, position, row = [], 0, 0
    for index, lengths in enumerate(LENGTHS):
        writer = ShardWriter(prepared / f"train-{index:05d}.arrow", np.uint16)
        for length in lengths:
            ids = stream()[position : position + length]
            writer.add(ids, np.array([length]), np.array([row not in CONTINUED]))
            position, row = position + length, row + 1
        shards.append(writer.close()._asdict())
    file = prepared / "tokenizer.json"
    tokenizer.byte([]).save(str(file))
    entry = {"documents": 6, "tokens": position, "bytes": 99, "shards": shards}
    described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
    manifest = {"kind": "tokens", "splits": {"train": entry}, "tokenizer": described, "vocab_size": 257, "eos": 256}
    publish(prepared, tmp_path / "small", manifest)
    assert not prepared.exists()
    return Dataset.open(tmp_path / "small")


def change(dataset: Dataset, **entries: object) -> None:
    path = dataset.path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_every_range_equals_that_of_the_written_stream(dataset: Dataset) -> None:
    split, whole = dataset.splits["train"], stream()
    for start in range(split.tokens + 1):
        for stop in range(start, split.tokens + 1):
            assert np.array_equal(split.read(start, stop), whole[start:stop])


def test_starts_are_found_in_every_range(dataset: Dataset) -> None:
    split, expected = dataset.splits["train"], document_starts()
    for start in range(split.tokens + 1):
        for stop in range(start, split.tokens + 1):
            assert split.starts(start, stop).tolist() == [at for at in expected if start <= at < stop]


def test_a_range_inside_a_record_batch_is_not_copied(dataset: Dataset) -> None:
    assert not dataset.splits["train"].read(5, 40).flags.owndata


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 81)])
def test_a_range_outside_the_stream_is_an_error(dataset: Dataset, start: int, stop: int) -> None:
    with pytest.raises(IndexError, match="80 tokens of 'train'"):
        dataset.splits["train"].read(start, stop)


def test_the_datasets_library_reads_a_shard(dataset: Dataset) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_file(str(dataset.path / "train-00000.arrow"))
    assert [len(row) for row in rows["tokens"]] == LENGTHS[0]
    assert list(rows["ends"]) == [True, True, False, True]


def test_a_pickled_split_reads_the_same_and_is_small(dataset: Dataset) -> None:
    split = dataset.splits["train"]
    split.read(0, 10)
    assert len(pickle.dumps(split)) < 2000
    assert np.array_equal(pickle.loads(pickle.dumps(split)).read(0, 80), stream())


def test_a_forked_process_reads_the_same(dataset: Dataset) -> None:
    dataset.splits["train"].read(0, 10)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply(dataset.splits["train"].read, (0, 80)), stream())


def test_an_intact_dataset_verifies_and_has_its_metadata(dataset: Dataset) -> None:
    dataset.verify()
    assert (dataset.kind, dataset.target.size, dataset.target.eos) == ("tokens", 257, 256)
    assert Tokenizer.from_file(str(dataset.target.file)).token_to_id("<eos>") == 256


def test_a_single_changed_bit_is_found_by_verify(dataset: Dataset) -> None:
    path = dataset.path / "train-00001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00001\.arrow"):
        Dataset.open(dataset.path).verify()


def test_the_checksum_covers_the_content_and_not_its_origin(dataset: Dataset) -> None:
    change(dataset, command=["unroll", "prepare", "text", "elsewhere"])
    assert Dataset.open(dataset.path).checksum == dataset.checksum
    change(dataset, eos=255)
    assert Dataset.open(dataset.path).checksum != dataset.checksum


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": 2}, "expected dataset format 1, got 2"),
        ({"kind": "poems"}, "expected a kind among tokens, pairs.*, got 'poems'"),
        ({"splits": {"train": {}}}, "malformed or missing entry: 'documents'"),
        ({"splits": 3}, "malformed or missing entry"),
    ],
)
def test_an_invalid_manifest_is_rejected(dataset: Dataset, entries: dict[str, object], message: str) -> None:
    change(dataset, **entries)
    with pytest.raises(DataError, match=message):
        Dataset.open(dataset.path)


def test_a_malformed_manifest_is_rejected(dataset: Dataset) -> None:
    (dataset.path / "dataset.json").write_bytes(b'{"format": 1')
    with pytest.raises(DataError, match="is not valid JSON"):
        Dataset.open(dataset.path)


def test_a_truncated_shard_is_rejected(dataset: Dataset) -> None:
    os.truncate(dataset.path / "train-00002.arrow", 100)
    with pytest.raises(DataError, match=r"train-00002\.arrow: expected \d+ bytes, got 100"):
        Dataset.open(dataset.path)


@pytest.mark.parametrize("file", ["train-00000.arrow", "tokenizer.json"])
def test_a_missing_file_is_named(dataset: Dataset, file: str) -> None:
    (dataset.path / file).unlink()
    with pytest.raises(DataError, match=f"{file} is missing"):
        Dataset.open(dataset.path)


def test_a_damaged_shard_of_the_right_size_is_named(dataset: Dataset) -> None:
    path = dataset.path / "train-00000.arrow"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match=r"train-00000\.arrow is damaged"):
        Dataset.open(dataset.path).splits["train"].read(0, 3)


def test_a_missing_directory_or_one_without_a_manifest_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        Dataset.open(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"is not a dataset: dataset\.json not found"):
        Dataset.open(tmp_path)


def test_publishing_does_not_overwrite_by_default(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="--overwrite"):
        publish(tmp_path / "other", dataset.path, {"kind": "tokens"})
    dataset.verify()


def test_replacing_a_directory_leaves_only_the_new_one(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_directory(tmp_path / "new", tmp_path / "old")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["old", "old/new"]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_ids_have_the_narrowest_type_for_the_vocabulary(vocab_size: int, dtype: type) -> None:
    assert token_type(vocab_size) is dtype


def test_the_names_on_disk_and_the_kinds_are_the_documented_ones(dataset: Dataset) -> None:
    record, numbers = {"pairs", "captions", "audio", "pixels"}, {"series", "trajectories", "music"}
    assert SPLITS.keys() == {"tokens", *record, *numbers}
    assert {kind for kind, split in SPLITS.items() if split is RecordSplit} == record
    assert (SPLITS["tokens"], SPLITS["series"], SPLITS["trajectories"]) == (TokenSplit, SeriesSplit, TrajectorySplit)
    assert SPLITS["music"] is MusicSplit
    assert sorted(path.name for path in dataset.path.iterdir()) == [
        "dataset.json", "tokenizer.json", "train-00000.arrow", "train-00001.arrow", "train-00002.arrow"
    ]  # fmt: skip
    text = (dataset.path / "dataset.json").read_text()
    assert json.loads(text)["format"] == 1
    assert text == json.dumps(json.loads(text), indent=1) + "\n"


@pytest.mark.parametrize("key", ["source", "audio", "pixels", "vocab_size", "eos", "splits", "tokenizer", "kind"])
def test_the_checksum_covers_everything_that_is_read(dataset: Dataset, key: str) -> None:
    manifest = json.loads((dataset.path / "dataset.json").read_text())
    changed: dict[str, object] = {
        "source": {name: manifest[name] for name in ("tokenizer", "vocab_size", "eos")},
        "splits": manifest["splits"] | {"test": manifest["splits"]["train"]},
        "tokenizer": manifest["tokenizer"] | {"note": "x"},
        "kind": "pairs",
    }
    if key == "kind":
        manifest["splits"] = {}
        change(dataset, splits={})
    before = Dataset.open(dataset.path).checksum
    change(dataset, **{key: changed.get(key, 1)})
    assert Dataset.open(dataset.path).checksum != before


@pytest.mark.parametrize("key", ["series", "trajectories", "music"])
def test_numbers_have_no_vocabulary_and_their_description_counts(dataset: Dataset, key: str) -> None:
    change(dataset, kind=key, splits={}, **{key: {"columns": 2}})
    found = Dataset.open(dataset.path, kind=key)
    assert found.vocabularies == found.facts.known() == found.tokenizers == {}
    assert found.source is None
    change(dataset, **{key: {"columns": 3}})
    assert Dataset.open(dataset.path).checksum != found.checksum


def test_a_source_has_a_vocabulary_of_its_own(dataset: Dataset) -> None:
    described = {"file": "source_tokenizer.json", "size": 2, "sha256": "0"}
    (dataset.path / "source_tokenizer.json").write_text("{}")
    change(dataset, source={"tokenizer": described, "vocab_size": 9, "eos": 3})
    found = Dataset.open(dataset.path)
    assert found.source == Vocabulary(dataset.path / "source_tokenizer.json", 9, 3)
    assert found.facts.known() == {"vocab_size": 257, "source_vocab_size": 9}
    assert found.tokenizers == {
        "tokenizer.json": dataset.path / "tokenizer.json",
        "source_tokenizer.json": dataset.path / "source_tokenizer.json",
    }
    with pytest.raises(DataError, match=r"source_tokenizer\.json does not match its SHA-256"):
        found.verify()


def test_the_stamp_changes_with_the_time_or_the_size_of_a_file(dataset: Dataset) -> None:
    path, before = dataset.path / "train-00001.arrow", dataset.stamp
    assert dataset.stamp == before
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = dataset.stamp
    assert changed != before
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert dataset.stamp not in (before, changed)
    assert "manifest" not in repr(dataset)


def test_overwrite_replaces_the_dataset(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    publish(tmp_path / "other", dataset.path, {"kind": "tokens"}, overwrite=True)
    assert [path.name for path in dataset.path.iterdir()] == ["dataset.json"]


def test_manifest_entries_describe_the_shards(dataset: Dataset) -> None:
    found = [(shard.file, shard.rows, shard.tokens) for shard in dataset.splits["train"].shards]
    assert found == [("train-00000.arrow", 4, 46), ("train-00001.arrow", 1, 7), ("train-00002.arrow", 3, 27)]
    batches = list(record_batches(dataset.path, dataset.splits["train"].shards))
    assert [batch.num_rows for batch in batches] == [3, 1, 1, 3]
    assert batches[0].schema.names == ["tokens", "ends"]
    assert all(dataset.splits["train"].starts(0, stop).dtype == np.int64 for stop in range(81))


def test_a_wrong_number_of_tokens_is_rejected(dataset: Dataset) -> None:
    entry = json.loads((dataset.path / "dataset.json").read_text())["splits"]["train"]
    change(dataset, splits={"train": entry | {"tokens": 81}})
    with pytest.raises(DataError, match="'train': expected 81 tokens, got 80"):
        Dataset.open(dataset.path).splits["train"].read(0, 3)
