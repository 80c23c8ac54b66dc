"""Batches of pairs contain sources and targets with EOS tokens, the same ones for any number of processes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_prep.workspace import tokenizer
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Share, Slice
from pipeline.data.pairs import PairsDataModule
from pipeline.dataset.manifest import publish
from pipeline.dataset.records import RecordWriter
from pipeline.errors import ConfigError, DataError
from pipeline.files import sha256

Write = Callable[[list[tuple[list[int], list[list[int]]]]], Path]
EOS, SOURCE_EOS = 256, 255


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a dataset whose splits all contain these (source, targets)."""

    def write(rows: list[tuple[list[int], list[list[int]]]]) -> Path:
        (prepared := tmp_path / ".pairs.partial").mkdir()
        splits = {}
        for name in ("train", "validation"):
            columns = {"source": pa.list_(pa.uint16()), "text": pa.string()}
            writer = RecordWriter(prepared / f"{name}.arrow", columns, np.uint16)
            for source, targets in rows:
                writer.add({"source": source, "text": "source"}, targets, ["target"] * len(targets))
            samples = sum(len(targets) for _, targets in rows)
            counts = {"rows": len(rows), "samples": samples, "tokens": samples, "bytes": samples}
            splits[name] = {**counts, "shards": [writer.close()._asdict()]}
        tokenizer.byte([]).save(str(file := prepared / "tokenizer.json"))
        described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
        target, source = ({"tokenizer": described, "vocab_size": 257, "eos": eos} for eos in (EOS, SOURCE_EOS))
        publish(prepared, tmp_path / "pairs", {"kind": "pairs", "splits": splits, "source": source} | target)
        return tmp_path / "pairs"

    return write


def random_rows(count: int) -> list[tuple[list[int], list[list[int]]]]:
    draw = np.random.default_rng(1)

    def tokens(shortest: int) -> list[int]:
        return draw.integers(0, 200, draw.integers(shortest, 20)).tolist()  # type: ignore[no-any-return]

    return [(tokens(0), [tokens(0) for _ in range(draw.integers(1, 4))]) for _ in range(count)]


def test_a_batch_is_padded_and_ends_with_eos_tokens(write: Write) -> None:
    data = PairsDataModule(write([([1, 2, 3], [[7], [8, 9]]), ([4], [[]])]))
    samples = data.samples("train")
    ids = np.array([0, 1, 2, NO_SAMPLE])
    batch = samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 5, 0))
    tokens, keep = batch.source
    assert [row[kept].tolist() for row, kept in zip(tokens, keep, strict=True)] == [
        [1, 2, 3, SOURCE_EOS],
        [1, 2, 3, SOURCE_EOS],
        [4, SOURCE_EOS],
        [SOURCE_EOS],
    ]
    assert batch.inputs.tolist() == [[EOS, 7, EOS], [EOS, 8, 9], [EOS] * 3, [EOS] * 3]
    assert batch.targets.tolist() == [
        [7, EOS, IGNORE],
        [8, 9, EOS],
        [EOS, IGNORE, IGNORE],
        [IGNORE] * 3,
    ]
    assert batch.predictions == 6
    assert (batch.positions, batch.padding) == (4 * 4 + 4 * 3, 4 * 4 + 4 * 3 - 11 - 6)
    assert batch.step == 5


@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (3, 40)])
def test_any_number_of_processes_sees_the_same_global_batches(write: Write, world: int, limit: int | None) -> None:
    data = PairsDataModule(write(random_rows(50)), global_batch_tokens=160)
    samples = data.samples("train")
    plan = data.plan(samples)
    shares = [Share.of_budget(160, limit, world, rank) for rank in range(world)]
    parts = [list(MicroBatches(plan, share, samples.predictions)) for share in shares]
    slots = shares[0].accumulation
    for k in range(len(plan)):
        mine = [parts[rank][k * slots + slot] for rank in range(world) for slot in range(slots)]
        ids = np.concatenate([part.ids for part in mine])
        assert ids[ids != NO_SAMPLE].tolist() == plan.batch(0, k).tolist()
        batches = [samples.__getitems__(part) for part in mine]
        assert sum(int((batch.targets != IGNORE).sum()) for batch in batches) == mine[0].predictions
        assert len(ids) * max(batch.inputs.shape[1] for batch in batches) <= 160 + 20 * world * slots


def test_an_evaluation_reads_every_pair_once(write: Write) -> None:
    data = PairsDataModule(write(random_rows(50)), global_batch_tokens=160)
    samples = data.samples("validation")
    plan = data.plan_evaluation(samples)
    assert sorted(np.concatenate([plan.batch(0, k) for k in range(len(plan))])) == list(range(len(samples)))


def test_a_pair_longer_than_the_budget_is_reported(write: Write) -> None:
    data = PairsDataModule(write([([1] * 30, [[2]]), ([3], [[2]])]), global_batch_tokens=30)
    with pytest.raises(ConfigError, match="takes 31 positions, more than global_batch_tokens=30"):
        data.plan(data.samples("train"))
    samples = data.samples("validation")  # an evaluation reads such a pair in a batch of its own
    plan = data.plan_evaluation(samples)
    assert [plan.batch(0, k).tolist() for k in range(len(plan))] == [[1], [0]]
    assert samples.__getitems__(Slice(plan.batch(0, 1), 0, 0, 0, 0)).source[0].shape == (1, 31)


def test_text_is_not_accepted_as_pairs(tiny_text_dataset: Path) -> None:
    with pytest.raises(DataError, match="expected kind 'pairs'"):
        PairsDataModule(tiny_text_dataset)
