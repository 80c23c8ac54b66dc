"""Attention in windows and documents is attention with a mask, on every path."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.documents import Documents
from pipeline.models.layers.local_attention import Local, attend

STARTS = np.random.default_rng(3).random((2, 150)) < 0.02


def local(window: int | None, documents: bool) -> Local:
    found = Documents.of(STARTS)
    return Local(window, found.positions, found.lengths, found.offsets) if documents else Local(window)


def mask_by_the_rule(window: int | None, documents: bool) -> Tensor:
    """One pair of positions at a time."""
    number = np.cumsum(STARTS, 1) if documents else np.zeros_like(STARTS, int)
    mask = torch.zeros(2, 1, 150, 150, dtype=torch.bool)
    for row, here in np.ndindex(2, 150):
        for there in range(max(0, here + 1 - (window or 150)), here + 1):
            mask[row, 0, here, there] = bool(number[row, here] == number[row, there])
    return mask


@pytest.mark.numeric
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [None, 1, 5, 32, 40, 75, 149, 200])
def test_it_equals_attention_with_a_mask(window: int | None, documents: bool) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 2, 4, 150, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 4, 150, 8, dtype=torch.float64)
    keep, mask = local(window, documents), mask_by_the_rule(window, documents)
    assert torch.equal(keep.mask(150, inputs.device).expand_as(mask), mask)
    if window is None and not documents:
        return
    found = attend(*inputs, keep, 0.0)
    expected = F.scaled_dot_product_attention(*inputs, mask)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad((each * weights).sum(), inputs)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.numeric
def test_documents_without_a_kernel_are_separated_by_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, keep = torch.randn(3, 2, 4, 150, 8), local(None, documents=True)
    sliced = attend(*inputs, keep, 0.0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(torch, "split", None)
    torch.testing.assert_close(attend(*inputs, keep, 0.0), sliced)


@pytest.mark.parametrize("documents", [False, True])
def test_a_window_in_a_long_row_has_no_mask_of_all_pairs(documents: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Local, "mask", None)
    inputs = torch.randn(3, 2, 4, 150, 8)
    starts = np.zeros((2, 150), np.bool_)
    found = Documents.of(starts)
    keep = Local(20, found.positions, found.lengths, found.offsets) if documents else Local(20)
    assert attend(*inputs, keep, 0.0).shape == (2, 4, 150, 8)


@pytest.mark.numeric
def test_attention_weights_are_dropped_in_documents_and_blocks() -> None:
    inputs = torch.randn(3, 2, 4, 150, 8)
    for keep in (local(20, documents=False), local(None, documents=True)):
        torch.manual_seed(0)
        assert not torch.allclose(attend(*inputs, keep, 0.5), attend(*inputs, keep, 0.0))
