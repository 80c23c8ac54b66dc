"""A simple recurrent network updates one hidden vector with each input.

Elman (1990), "Finding Structure in Time":
    h_t = f(W x_t + b + U h_{t-1} + c),   f = tanh or relu

Legend: B sequences, T positions, D features.
"""

from functools import partial
from typing import Any, Literal

from torch import nn

from pipeline.models.layers.recurrent import RecurrentStack
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["RNN", "RNNLanguageModel"]


class RNN(RecurrentStack):
    """A stack of simple recurrent layers; the recurrent weights start orthogonal.

    The state is a list with one tuple (h,) per layer, of shape (B, features of the layer).

    Args:
        nonlinearity: tanh or relu.
        **stack: width, depth, hidden and the dropout rates, as in `RecurrentStack`.
    """

    def __init__(self, nonlinearity: Literal["tanh", "relu"] = "tanh", **stack: Any) -> None:
        kernel = partial(nn.RNN, nonlinearity=nonlinearity, batch_first=True)
        super().__init__(kernel, nn.init.zeros_, **stack)


class RNNLanguageModel(LanguageModel):
    """A language model whose network is an `RNN`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(RNN(**network), vocab_size, head, optimizer, schedule)
