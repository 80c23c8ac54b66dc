"""A bag of words predicts from the mean of all inputs so far, independent of their order.

Iyyer, Manjunatha, Boyd-Graber and Daumé (2015), "Deep Unordered Composition Rivals Syntactic Methods for
Text Classification", read from left to right:
    y_t = MLP(norm(m_t)),   m_t = (x_1 + ... + x_t) / t

Legend: B sequences, T positions, D features.
"""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.models.layers.feedforward import initialise
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["BagOfWords", "BagOfWordsLanguageModel"]


class BagOfWords(nn.Module):
    """Hidden layers over the running mean of the inputs.

    The state is the running sum, shape (B, D), and the count of inputs in it, shape (B,).

    Args:
        width: features in and out.
        depth: number of hidden layers.
        hidden: features of each hidden layer (default: twice the width).
        dropout: fraction of the hidden features dropped in training.

    Raises:
        ValueError: the depth is below 1.
    """

    def __init__(self, width: int = 256, depth: int = 2, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        self.width = width
        sizes = [width] + [hidden or 2 * width] * depth
        layers: list[nn.Module] = [nn.LayerNorm(width)]
        for size, next_size in pairwise(sizes):
            layers += [nn.Linear(size, next_size), nn.GELU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], width))
        self.apply(initialise)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        exact = torch.promote_types(inputs.dtype, torch.float32)  # bfloat16 is too coarse for long sums
        total = inputs.to(exact).cumsum(1)
        count = torch.arange(1, inputs.shape[1] + 1, device=inputs.device).expand(inputs.shape[:2])
        if state is not None:
            total = total + state[0][:, None]
            count = count + state[1][:, None]
        outputs = self.layers((total / count[..., None]).to(inputs.dtype))
        return outputs, (total[:, -1].clone(), count[:, -1].clone())


class BagOfWordsLanguageModel(LanguageModel):
    """A language model whose network is a `BagOfWords`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(BagOfWords(**network), vocab_size, head, optimizer, schedule)
