"""Networks without fused recurrent kernels compile to one graph, forward and backward."""

import shutil

import pytest
import torch

from pipeline.models.conv import ConvNet
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.transformer import Transformer


@pytest.fixture
def _needs_a_compiler(request):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler on this machine")
    if request.config.getoption("--jaxtyping-packages", default=None):
        pytest.skip("the shape checks of jaxtyping break the graph")


@pytest.mark.slow
@pytest.mark.usefixtures("_needs_a_compiler")
@pytest.mark.parametrize(
    "network",
    [Transformer(width=16, depth=1), ConvNet(width=16, depth=2), LinearRecurrence(width=16, depth=1)],
    ids=lambda network: type(network).__name__,
)
def test_it_compiles_to_one_graph(network):
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, 16)
    compiled = torch.compile(network, fullgraph=True)
    outputs, expected = compiled(inputs)[0], network(inputs)[0]
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    outputs.square().mean().backward()
    given = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    expected.square().mean().backward()
    torch.testing.assert_close(given, [each.grad for each in network.parameters()], rtol=1e-3, atol=1e-5)
