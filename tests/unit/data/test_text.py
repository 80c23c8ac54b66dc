"""Windows predict every token from the one before it, in each order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data_prep.text.command
from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import InOrder, MicroBatches, Share, Slice
from pipeline.data.text import TextDataModule, Windows
from pipeline.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text("\n".join(f"line {i} of {i * i}" for i in range(40)))
    arguments = [
        "--train",
        str(folder / "a.txt"),
        "--validation",
        str(folder / "a.txt"),
        "--documents",
        "line",
    ]
    data_prep.text.command.main([*arguments, "--tokenizer", "byte", "--output", str(folder / "data"), "--workers", "1"])
    return folder / "data"


def read_all(windows: Windows, size: int) -> list[torch.Tensor]:
    sampler = MicroBatches(InOrder(len(windows), size), Share(), windows.predictions)
    batches = [windows.__getitems__(part) for part in sampler]
    for batch in batches:
        assert batch.predictions == int((batch.targets != IGNORE).sum())
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("inputs", "targets")]


def assert_documents_start_after_eos(batch: Any, data: TextDataModule) -> None:
    expected = batch.inputs == data.dataset.target.eos
    expected[:, 0] = True  # what comes before a row is not read
    assert torch.equal(batch.documents.positions == 0, expected)


@pytest.mark.parametrize("context", [1, 7, 16, 10_000])
def test_every_token_is_predicted_once_from_the_one_before(dataset: Path, context: int) -> None:
    data = TextDataModule(dataset, context=context, global_batch_size=3)
    split = data.dataset.splits["validation"]
    stream = split.read(0, split.tokens).astype(np.int64)
    inputs, targets = (part.flatten() for part in read_all(data.samples("validation"), 3))
    inside = targets != IGNORE
    assert targets[inside].tolist() == stream.tolist()
    assert inputs[inside].tolist() == [data.dataset.target.eos, *stream[:-1].tolist()]


@pytest.mark.numeric
@pytest.mark.parametrize("order", ["shuffled", "documents", "contiguous"])
def test_random_offsets_shift_all_training_windows_of_an_epoch(dataset: Path, order: str) -> None:
    settings = {"order": order, "context": 16, "global_batch_size": 4, "seed": 3, "random_offset": True}
    data = TextDataModule(dataset, **settings)
    windows, split = data.samples("train"), data.dataset.splits["train"]
    stream = np.insert(split.read(0, split.tokens).astype(np.int64), 0, data.dataset.target.eos)
    offsets = set()
    for epoch in range(200):
        ids = np.array([0, 5, len(windows) - 1])
        batch = windows.__getitems__(Slice(ids, windows.predictions(ids), epoch, 0, 0))
        offset = windows.offset(epoch)
        offsets.add(offset)
        for row, first in enumerate(offset + 16 * ids):
            assert batch.inputs[row].tolist() == stream[first : first + 16].tolist()
            assert batch.targets[row].tolist() == stream[first + 1 : first + 17].tolist()
        assert batch.predictions == 48
        if batch.documents is not None:
            assert_documents_start_after_eos(batch, data)
    assert offsets == set(range(16))
    assert [TextDataModule(dataset, **settings).samples("train").offset(epoch) for epoch in range(9)] == [
        windows.offset(epoch) for epoch in range(9)
    ]
    assert data.samples("validation").offset(7) == 0


@pytest.mark.numeric
def test_documents_start_after_an_eos_token(dataset: Path) -> None:
    data = TextDataModule(dataset, order="documents", context=16, global_batch_size=4)
    windows = data.samples("train")
    part = next(iter(MicroBatches(InOrder(len(windows), 4), Share(), windows.predictions)))
    batch = windows.__getitems__(part)
    assert batch.slot is None
    assert_documents_start_after_eos(batch, data)
    assert len(batch.documents.lengths) > 4


def test_only_contiguous_windows_carry_the_state(dataset: Path) -> None:
    for order, slot in (("contiguous", 0), ("shuffled", None)):
        windows = TextDataModule(dataset, order=order, context=8, global_batch_size=2).samples("train")  # type: ignore[arg-type]
        part = next(iter(MicroBatches(InOrder(len(windows), 2), Share(), windows.predictions)))
        assert windows.__getitems__(part).slot == slot


def test_a_missing_dataset_and_a_small_one_are_reported(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        TextDataModule(tmp_path / "nowhere")
    data = TextDataModule(dataset, context=1000, global_batch_size=512)
    with pytest.raises(ConfigError, match="fewer than global_batch_size=512"):
        data.plan(data.samples("train"))
