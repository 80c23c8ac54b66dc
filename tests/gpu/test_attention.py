"""On a CUDA device attention in documents and windows equals that on the CPU, by one kernel in half precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.documents import Documents
from pipeline.models.layers import local_attention
from pipeline.models.transformer import Transformer
from pipeline.tasks.document_resets import read_documents

pytestmark = pytest.mark.gpu
DEVICE, DEPTH = "cuda", 2


def moved(documents: Documents) -> Documents:
    tensors = {name: getattr(documents, name).to(DEVICE) for name in ("positions", "offsets", "places")}
    return documents._replace(**tensors, padded=tuple(each.to(DEVICE) for each in documents.padded))


@pytest.mark.parametrize("documents", [True, False])
@pytest.mark.parametrize("window", [None, 1, 40])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_it_equals_attention_on_the_cpu(
    dtype: torch.dtype, within: float, window: int | None, documents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        straight = getattr(local_attention, name)

        def run(*given: Any) -> Any:
            kernels.append(name)
            return straight(*given)

        return run

    monkeypatch.setattr(local_attention, "_in_one_kernel", counted("_in_one_kernel"))
    torch.manual_seed(0)
    network, inputs = Transformer(width=64, depth=DEPTH, heads=2, window=window), torch.randn(3, 200, 64)
    starts = np.random.default_rng(0).random((3, 200)) < np.array([[0.02], [0.3], [0.0]])
    weights = torch.randn(inputs.shape)

    def run(inputs: Tensor, found: Documents) -> list[Tensor]:
        inputs = inputs.requires_grad_()
        outputs = read_documents(network, inputs, found) if documents else network(inputs)[0]
        return [outputs, *torch.autograd.grad((outputs * weights.to(outputs)).sum(), inputs)]

    expected = run(inputs.clone(), Documents.of(starts))
    network.to(DEVICE, dtype)
    actual = run(inputs.to(DEVICE, dtype), moved(Documents.of(starts)))
    for one, other in zip(actual, expected, strict=True):
        error = (one.float().cpu() - other).norm() / other.norm()
        assert error < within
    half = dtype.itemsize == 2 and local_attention.HAS_VARLEN and (documents or window is not None)
    assert len(kernels) == (DEPTH if half and DEVICE == "cuda" else 0)
