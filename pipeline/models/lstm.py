"""A long short-term memory keeps a cell that is written, cleared and read through gates.

Hochreiter and Schmidhuber (1997), "Long Short-Term Memory", with the forget gate of Gers et al. (2000):
    i, f, o = sigmoid(W x_t + U h_{t-1} + b), each with its own W, U, b
    g = tanh(W_g x_t + U_g h_{t-1} + b_g)
    c_t = f * c_{t-1} + i * g,   h_t = o * tanh(c_t)

Legend: B sequences, T positions, D features.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn

from pipeline.models.layers.recurrent import RecurrentStack
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["LSTM", "LSTMLanguageModel"]


class LSTM(RecurrentStack):
    """A stack of LSTM layers; the recurrent weights of each gate start orthogonal.

    The state is a list with one tuple (h, c) per layer, each of shape (B, features of the layer).

    Args:
        forget_bias: initial bias of the forget gate; 1 keeps the gate open at first
            (Jozefowicz, Zaremba and Sutskever, 2015).
        **stack: width, depth, hidden and the dropout rates, as in `RecurrentStack`.
    """

    def __init__(self, forget_bias: float = 1.0, **stack: Any) -> None:
        def fill(bias: Tensor) -> None:
            _, forget, _, _ = nn.init.zeros_(bias).chunk(4)  # torch's order: i, f, g, o
            nn.init.constant_(forget, forget_bias)

        super().__init__(partial(nn.LSTM, batch_first=True), fill, **stack)


class LSTMLanguageModel(LanguageModel):
    """A language model whose network is an `LSTM`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(LSTM(**network), vocab_size, head, optimizer, schedule)
