"""The networks of `pipeline.models` and what the tests of their contract share.

Networks are found by walking `pipeline.models`, so a new architecture is tested without an edit here.

Legend: B sequences, T positions, D features.
"""

import io
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn

import pipeline.models
from pipeline import state as states
from pipeline.models.conv import ConvNet
from pipeline.models.layers.feedforward import GELU
from pipeline.models.lstm import LSTM
from pipeline.models.ngram import NGram
from pipeline.models.pixel_cnn import PixelCNN
from pipeline.models.rnn import RNN
from pipeline.models.row_lstm import RowLSTM
from pipeline.models.transformer import Transformer

WIDTH = 16
Make = Callable[..., nn.Module]


def exported_networks(causal: bool = True) -> list[type[nn.Module]]:
    """Networks that carry a state; else those that read a window at once."""
    found = []
    for entry in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        module = import_module(entry.name)
        exported = [getattr(module, name) for name in getattr(module, "__all__", ())]
        classes = [each for each in exported if isinstance(each, type) and issubclass(each, nn.Module)]
        networks = [each for each in classes if not issubclass(each, LightningModule)]
        found += [each for each in networks if ("state" in signature(each.forward).parameters) == causal]
    return found


NETWORKS: dict[str, Make] = {network.__name__: network for network in exported_networks()}
VARIANTS: dict[str, Make] = {
    "NGram of order 2": partial(NGram, order=2),
    "RNN with relu": partial(RNN, nonlinearity="relu"),
    "LSTM wider inside": partial(LSTM, depth=3, hidden=24),
    "ConvNet of kernel 3": partial(ConvNet, kernel=3, depth=4, cycle=3, hidden=24),
    "Transformer with learned positions": partial(Transformer, positions=64, feedforward=GELU, heads=2),
    "Transformer with a window": partial(Transformer, window=4),
    "Transformer with a window of 1": partial(Transformer, window=1),
    "PixelCNN": partial(PixelCNN, columns=4),  # of several rows in so few positions
    "PixelCNN in colour": partial(PixelCNN, columns=6, channels=2, first_kernel=5, depth=2),
    "RowLSTM": partial(RowLSTM, columns=4),
    "RowLSTM in colour": partial(RowLSTM, columns=6, channels=2, first_kernel=5, depth=1),
}
ALL = NETWORKS | VARIANTS
GROWING = {"Transformer", "Transformer with learned positions"}  # their cache holds all inputs
every_network = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


def build(make: Make, dtype: torch.dtype = torch.float64, seed: int = 1, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make(width=WIDTH, **options).to(dtype).eval()


def random_inputs(sequences: int = 3, positions: int = 11, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(sequences, positions, WIDTH, dtype=dtype)


def read_in_pieces(
    network: nn.Module, inputs: Tensor, sizes: list[int], between: Callable = lambda state: state
) -> Tensor:
    state, outputs = None, []
    for piece in inputs.split(sizes, 1):
        output, state = network(piece, state)
        state = between(state)
        outputs.append(output)
    return torch.cat(outputs, 1)


def assert_equal_to_rounding(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def save_and_load(state: states.State) -> states.State:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
