"""A gated recurrent unit interpolates between its previous state and a candidate state.

Cho et al. (2014), "Learning Phrase Representations using RNN Encoder-Decoder", as in cuDNN (the reset gate
acts after the product with U_n):
    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r),   z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + c_n)),   h_t = (1 - z_t) * n_t + z_t * h_{t-1}

Legend: B sequences, T positions, D features.
"""

from functools import partial
from typing import Any

from torch import nn

from pipeline.models.layers.recurrent import RecurrentStack
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["GRU", "GRULanguageModel"]


class GRU(RecurrentStack):
    """A stack of gated recurrent units; the recurrent weights of each gate start orthogonal.

    The state is a list with one tuple (h,) per layer, of shape (B, features of the layer).

    Args:
        **stack: width, depth, hidden and the dropout rates, as in `RecurrentStack`.
    """

    def __init__(self, **stack: Any) -> None:
        super().__init__(partial(nn.GRU, batch_first=True), nn.init.zeros_, **stack)


class GRULanguageModel(LanguageModel):
    """A language model whose network is a `GRU`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(GRU(**network), vocab_size, head, optimizer, schedule)
