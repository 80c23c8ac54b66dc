"""Counted FLOPs agree with the formulas: 2 m n per token for a matrix, three times that with the backward pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.batch import TokenBatch
from pipeline.data.documents import Documents
from pipeline.evaluation.flops import flops_of
from pipeline.models.gru import GRULanguageModel
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.models.rnn import RNNLanguageModel
from pipeline.models.transformer import TransformerLanguageModel
from pipeline.tasks.language_model import LanguageModel
from pipeline.tasks.task import Task

ROWS, POSITIONS, WIDTH, VOCABULARY = 3, 10, 16, 23
HEAD = 2 * WIDTH * VOCABULARY


class Matrix(nn.Module):
    """A network that is one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.width = WIDTH
        self.matrix = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        return self.matrix(inputs), state


def batch(starts: bool = False) -> TokenBatch:
    tokens = torch.zeros(ROWS, POSITIONS, dtype=torch.int64)
    edges = np.zeros((ROWS, POSITIONS), np.bool_)
    edges[:, 4] = True
    return TokenBatch(
        tokens, tokens, Documents.of(edges) if starts else None, torch.arange(ROWS), ROWS * POSITIONS, 0, None
    )


def per_token(build: Callable[[], LanguageModel], starts: bool = False) -> float:
    """Return the FLOPs per token of a training step."""
    return flops_of(build, batch(starts)) / (ROWS * POSITIONS)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the loss scale, which requires a trainer."""
    monkeypatch.setattr(Task, "loss_scale", 1)


def test_a_matrix_costs_two_m_n_a_token_and_three_times_that_with_the_backward_pass() -> None:
    assert per_token(lambda: LanguageModel(Matrix(), VOCABULARY)) == 3 * (2 * WIDTH * WIDTH + HEAD)


@pytest.mark.parametrize(("task", "gates"), [(RNNLanguageModel, 1), (GRULanguageModel, 3), (LSTMLanguageModel, 4)])
def test_a_recurrent_layer_costs_two_matrices_a_gate(task: Any, gates: int) -> None:
    layer = 2 * gates * 2 * WIDTH * WIDTH
    first = 2 * gates * WIDTH * WIDTH  # the initial state requires no gradient
    forward = 2 * layer + HEAD
    assert per_token(lambda: task(VOCABULARY, width=WIDTH, depth=2)) == 3 * forward - 2 * first / POSITIONS


def test_the_padding_of_documents_is_counted() -> None:
    cut, whole = (per_token(lambda: LanguageModel(Matrix(), VOCABULARY), starts) for starts in (True, False))
    assert whole <= cut < 2 * whole  # shorter documents are filled up


@pytest.mark.parametrize("dropout", [0.0, 0.5])  # PyTorch's fused attention has no dropout
def test_attention_costs_two_products_over_all_positions(dropout: float) -> None:
    shape = {"width": WIDTH, "depth": 1, "heads": 2, "hidden": 40, "dropout": dropout}
    matrices = 4 * WIDTH * WIDTH + 3 * WIDTH * 40
    attention = 2 * 2 * POSITIONS * WIDTH
    assert per_token(lambda: TransformerLanguageModel(VOCABULARY, **shape)) == 3 * (2 * matrices + attention + HEAD)
