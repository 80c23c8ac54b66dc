"""Networks without fused recurrent kernels compile to one graph, forward and backward."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from pipeline.callbacks.layer_execution import Execution, keep_compiled
from pipeline.distributed.strategies.sharded import layers
from pipeline.errors import ConfigError
from pipeline.models.conv import ConvNet, ConvNetLanguageModel
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
@pytest.mark.parametrize(("kind", "recompute"), [(LSTMLanguageModel, False), (TransformerLanguageModel, True)])
def test_compiled_layers_have_the_gradients_of_plain_ones(kind, recompute, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
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


@pytest.mark.slow
@pytest.mark.usefixtures("_needs_a_compiler")
def test_a_restart_finds_the_compiled_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # as the import of Lightning sets it
    monkeypatch.setenv("TRITON_CACHE_DIR", default_cache_dir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokens = torch.arange(18).reshape(2, 9) % 11
    found = []
    for _ in range(2):
        torch._dynamo.reset()  # forgets what is compiled in this process
        counters["inductor"].clear()
        torch.manual_seed(0)
        model = ConvNetLanguageModel(vocab_size=11, width=16, depth=1)
        Execution(compile=True).on_train_start(SimpleNamespace(strategy=None), model)
        _gradients(model, tokens)
        found.append((counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"]))
    (missed, _), second = found
    assert missed > 0
    assert second[0] == 0
    assert second[1] > 0
    assert list((tmp_path / "unroll" / "compiled" / "fxgraph").iterdir())
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "unroll" / "compiled" / "triton")


def test_a_directory_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere/triton")
    keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"
    assert os.environ["TRITON_CACHE_DIR"] == "/elsewhere/triton"


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
