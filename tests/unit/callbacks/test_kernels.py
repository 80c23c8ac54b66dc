"""The kernels of a step are found in the graph of its loss."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.callbacks.kernels import kernels_of
from pipeline.models.gru import GRULanguageModel
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.models.transformer import TransformerLanguageModel

TOKENS = torch.zeros(2, 8, dtype=torch.int64)


def of(model: Any) -> dict[str, int]:
    """Return the kernels of a step of a language model."""
    loss: Tensor = model(TOKENS)[0].square().mean()
    return kernels_of(loss, model)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_attention_runs_fused_or_in_several_kernels(dropout: float) -> None:
    """PyTorch's fused attention on the CPU has no dropout."""
    found = of(TransformerLanguageModel(11, width=16, depth=2, heads=2, dropout=dropout))
    assert found == ({"attention: math, in several kernels": 2} if dropout else {"attention: flash (CPU)": 2})


def test_a_recurrence_runs_a_fused_kernel_or_position_by_position() -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        assert of(LSTMLanguageModel(11, width=16, depth=2)) == {"recurrence: native, position by position": 2}
    assert of(GRULanguageModel(11, width=16, depth=1)) == {"recurrence: native, position by position": 1}


class CompiledFunction(torch.autograd.Function):
    """A function whose node has the name and the fields of one of torch.compile."""

    compiled_fw = SimpleNamespace(source_code="x = torch.ops.aten._scaled_dot_product_cudnn_attention.default(a, b)")

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()


class CudnnRnn(CompiledFunction):
    """A function whose node has the name of cuDNN's recurrent kernel."""


def test_the_kernels_of_a_gpu_and_of_compiled_layers_have_names() -> None:
    inputs = torch.ones(3, requires_grad=True)
    loss = CudnnRnn.apply(CompiledFunction.apply(inputs)).sum()  # type: ignore[no-untyped-call]
    found = kernels_of(loss, nn.Linear(1, 1))
    assert found == {"recurrence: cuDNN": 1, "attention: cuDNN": 1, "compiled by torch.compile": 1}
