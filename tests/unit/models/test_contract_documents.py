"""Every network reads the documents of a batch as if each were alone, whatever surrounds them."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.data.documents import Documents
from pipeline.models.layers import local_attention
from pipeline.models.transformer import Transformer
from pipeline.tasks.document_resets import read_documents
from tests.unit.models.networks import ALL, assert_equal_to_rounding, build, random_inputs

POSITIONS = 40
LONG_DOCUMENTS = {"Transformer with blocks of a window": partial(Transformer, window=3)}
every_network = pytest.mark.parametrize("make", (ALL | LONG_DOCUMENTS).values(), ids=(ALL | LONG_DOCUMENTS).keys())


def random_starts() -> np.ndarray:
    """Rows of documents of lengths from 1 to all positions."""
    starts: np.ndarray = np.random.default_rng(4).random((3, POSITIONS)) < np.array([[0.15], [0.5], [0.0]])
    return starts


def alone(network: nn.Module, inputs: Tensor, starts: np.ndarray) -> Tensor:
    """The outputs of each document, read by itself."""
    rows = []
    for row, places in zip(inputs, starts, strict=True):
        edges = sorted({0, *np.flatnonzero(places).tolist(), len(row)})
        rows.append(torch.cat([network(row[None, a:b])[0][0] for a, b in itertools.pairwise(edges)]))
    return torch.stack(rows)


@pytest.mark.numeric
@every_network
def test_documents_read_together_equal_documents_read_alone(make, monkeypatch):
    monkeypatch.setattr(local_attention, "SMALLEST_BLOCK", 4)
    network, starts = build(make), random_starts()
    inputs = random_inputs(3, POSITIONS).requires_grad_()
    weights = torch.randn(inputs.shape, dtype=inputs.dtype)
    results = []
    for outputs in (read_documents(network, inputs, Documents.of(starts)), alone(network, inputs, starts)):
        read = [inputs, *network.parameters()]
        results.append([outputs, *torch.autograd.grad((outputs * weights).sum(), read, allow_unused=True)])
    for together, apart in zip(*results, strict=True):
        if apart is not None:
            assert_equal_to_rounding(together, apart)


@pytest.mark.numeric
@every_network
def test_documents_are_read_the_same_in_every_layout_of_a_batch(make):
    network, starts, inputs = build(make), random_starts(), random_inputs(3, POSITIONS)
    whole = read_documents(network, inputs, Documents.of(starts))
    order = [2, 0, 1]
    turned = read_documents(network, inputs[order], Documents.of(starts[order]))
    assert_equal_to_rounding(turned, whole[order])
    for row in range(3):
        one = read_documents(network, inputs[row : row + 1], Documents.of(starts[row : row + 1]))
        assert_equal_to_rounding(one[0], whole[row])


def test_learned_positions_limit_documents_and_not_rows():
    starts = np.zeros((1, POSITIONS), np.bool_)
    starts[0, [20, 30]] = True
    network = build(partial(Transformer, positions=20))
    inputs = random_inputs(1, POSITIONS)
    assert_equal_to_rounding(read_documents(network, inputs, Documents.of(starts)), alone(network, inputs, starts))
    starts[0, 20] = False
    with pytest.raises(ValueError, match="positions=20: expected at least 30 learned positions"):
        read_documents(network, inputs, Documents.of(starts))
