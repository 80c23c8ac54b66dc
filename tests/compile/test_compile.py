"""Networks without fused recurrent kernels compile to one graph, forward and backward."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from pipeline.callbacks.layer_execution import Execution
from pipeline.distributed.strategies.sharded import layers
from pipeline.errors import ConfigError
from pipeline.models.conv import ConvNet
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.models.transformer import Transformer, TransformerLanguageModel
from pipeline.tasks.token_prediction import TokenHead


@pytest.fixture
def _needs_a_compiler():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler on this machine")


@pytest.mark.numeric
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


@pytest.mark.numeric
@pytest.mark.slow
@pytest.mark.usefixtures("_needs_a_compiler")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", [LSTMLanguageModel, TransformerLanguageModel])
def test_compiled_layers_have_the_gradients_of_plain_ones(kind, recompute):
    torch.manual_seed(0)
    model = kind(vocab_size=11, width=16, depth=2, head=TokenHead(label_smoothing=0.1))
    tokens = torch.arange(18).reshape(2, 9) % 11
    plain = _gradients(model, tokens)
    execution = Execution(compile=True, activation_checkpointing=recompute)
    execution.on_train_start(SimpleNamespace(strategy=None), model)
    assert all("forward" in vars(layer) for layer in layers(model))
    assert "token_losses" in vars(model)
    torch.testing.assert_close(_gradients(model, tokens), plain, rtol=1e-3, atol=1e-5)
    execution.on_train_end(None, model)
    assert not any("forward" in vars(layer) for layer in layers(model))
    assert "token_losses" not in vars(model)


def _gradients(model, tokens):
    model.zero_grad()
    outputs, _ = model.network(model.embedding(tokens[:, :-1]))
    nats, smoothed = model.token_losses(outputs, tokens[:, 1:])
    (nats + smoothed).backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_a_missing_compiler_raises_an_error_that_names_the_fix(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"install g\+\+"):
        Execution(compile=True)
    assert not Execution(activation_checkpointing=True).compile
