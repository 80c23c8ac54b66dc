"""The loader finds where documents are, and lays them out in rows of few shapes."""

import itertools

import numpy as np
import pytest
import torch

from pipeline.data.documents import Documents

CONTEXT = 48
PADDED = 2.0  # positions of padded rows per input, for documents of all lengths


def random_starts(seed: int, rows: int = 6, share: float = 0.1) -> np.ndarray:
    starts: np.ndarray = np.random.default_rng(seed).random((rows, CONTEXT)) < share
    return starts


def lengths_by_counting(starts: np.ndarray) -> list[list[int]]:
    """The lengths of the documents of each row."""
    edges = [sorted({0, *np.flatnonzero(row).tolist(), len(row)}) for row in starts]
    return [[last - first for first, last in itertools.pairwise(row)] for row in edges]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_positions_and_lengths_are_those_of_the_documents(share: float) -> None:
    starts = random_starts(0, share=share)
    found, expected = Documents.of(starts), lengths_by_counting(starts)
    assert found.lengths == tuple(itertools.chain(*expected))
    assert found.positions.tolist() == [[place for length in row for place in range(length)] for row in expected]
    count = len(found.lengths)
    assert found.offsets[: count + 1].tolist() == [0, *itertools.accumulate(found.lengths)]
    assert set(found.offsets[count:].tolist()) == {starts.size}
    assert (len(found.offsets) - 1).bit_count() == 1
    assert found.offsets.dtype == torch.int32


@pytest.mark.numeric
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_each_document_is_the_start_of_one_padded_row(share: float) -> None:
    starts = random_starts(1, share=share)
    found = Documents.of(starts)
    inputs = torch.arange(starts.size)
    read = torch.cat([rows.flatten() for rows in found.padded])
    assert torch.equal(read[found.places], inputs)
    rows = torch.cat([torch.arange(each.numel()) % each.shape[1] for each in found.padded])
    assert torch.equal(rows[found.places], found.positions.flatten())
    assert all(int(each.min()) >= 0 and int(each.max()) < starts.size for each in found.padded)


def test_batches_have_few_shapes_and_little_padding() -> None:
    """Rows of every length are in every batch; their number is one of four per power of two."""
    numbers = {1, 2, 3} | {mantissa << power for mantissa in (4, 5, 6, 7) for power in range(10)}
    padded = 0
    for seed in range(200):
        found = Documents.of(random_starts(seed, rows=32, share=(seed % 10) / 50))
        assert [each.shape[1] for each in found.padded] == [48, 24, 12]
        assert {len(each) for each in found.padded} <= numbers
        padded += sum(each.numel() for each in found.padded)
    assert padded < PADDED * 200 * 32 * CONTEXT


def test_a_batch_of_one_position_is_one_document() -> None:
    found = Documents.of(np.zeros((1, 1), np.bool_))
    assert found.lengths == (1,)
    assert [each.tolist() for each in found.padded] == [[[0]]]
    assert found.offsets.tolist() == [0, 1]
