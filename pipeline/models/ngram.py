"""A neural n-gram predicts from the last n-1 inputs.

Bengio, Ducharme, Vincent and Jauvin (2003), "A Neural Probabilistic Language Model":
    y_t = W c_t + U tanh(d + H c_t),   c_t = (x_{t-n+2}, ..., x_t)
where y_t is a vector of D features for the output layer, instead of the scores of all words.

Legend: B sequences, T positions, D features.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.layers.causal_history import prepend, windows
from pipeline.models.layers.feedforward import initialise
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["NGram", "NGramLanguageModel"]


class NGram(nn.Module):
    """One hidden layer over the last n-1 inputs, with a direct connection from input to output.

    The state is the last n-1 inputs, shape (B, n-1, D).

    Args:
        width: features in and out.
        order: the n of n-gram; an output is a function of the last n-1 inputs, including its own.
        hidden: features of the hidden layer (default: twice the width).
        dropout: fraction of the inputs and hidden features dropped in training.

    Raises:
        ValueError: the order is below 2.
    """

    def __init__(self, width: int = 256, order: int = 5, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if order < 2:
            raise ValueError(f"order={order} must be at least 2: an n-gram reads n-1 inputs")
        hidden = hidden or 2 * width
        self.width = width
        self.order = order
        self.hidden = nn.Linear((order - 1) * width, hidden)
        self.output = nn.Linear(hidden, width, bias=False)
        self.direct = nn.Linear((order - 1) * width, width)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        extended, state = prepend(state, inputs, self.order - 1)
        context = self.dropout(windows(extended[:, 1:], self.order - 1))
        outputs = self.output(self.dropout(torch.tanh(self.hidden(context)))) + self.direct(context)
        return outputs, state


class NGramLanguageModel(LanguageModel):
    """A language model whose network is an `NGram`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(NGram(**network), vocab_size, head, optimizer, schedule)
