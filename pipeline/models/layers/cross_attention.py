"""The memory of an encoded source, and attention to it: additive, multiplicative and multi-head.

Bahdanau, Cho and Bengio (2015), "Neural Machine Translation by Jointly Learning to Align and Translate":
    score(q, m) = v . tanh(W q + U m)
Luong, Pham and Manning (2015), "Effective Approaches to Attention-based Neural Machine Translation", "general":
    score(q, m) = q . (U m)

Legend: B sequences, S positions of the memory, T positions, D features, K features of a key.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Memory(NamedTuple):
    """An encoded source."""

    values: Float[Tensor, "B S D"]
    keep: Bool[Tensor, "B S"]
    """True at positions of the source, at least one per row; False at padding."""
    summary: Float[Tensor, "B D"]
    """The whole source as one vector."""


class Attention(nn.Module):
    """Attention that returns the mean of the memory's values, weighted by the softmax of scores.

    Args:
        width: features of a query and of the memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        nn.init.xavier_uniform_(self.key.weight)

    def scores(self, queries: Float[Tensor, "B T D"], keys: Float[Tensor, "B S K"]) -> Float[Tensor, "B T S"]:
        """Return the score of each position for each query."""
        raise NotImplementedError

    def forward(
        self,
        queries: Float[Tensor, "B T D"],
        keys: Float[Tensor, "B S K"],
        values: Float[Tensor, "B S D"],
        keep: Bool[Tensor, "B S"],
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T S"]]:
        """Return the weighted mean of the values for each query, and the weights.

        Args:
            queries: queries of the decoder.
            keys: the memory's values projected by `key`, computed once for all queries.
            values: the memory's values.
            keep: mask of the memory, False at padding.
        """
        scores = self.scores(queries, keys).float().masked_fill(~keep[:, None], -torch.inf)
        weights = scores.softmax(-1).to(values.dtype)
        return weights @ values, weights


class AdditiveAttention(Attention):
    """Additive attention, with scores from one hidden layer over query and key (Bahdanau et al. 2015).

    Args:
        width: features of a query and of the memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.query = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.zeros_(self.query.bias)
        nn.init.normal_(self.score.weight, std=width**-0.5)

    def scores(self, queries: Float[Tensor, "B T D"], keys: Float[Tensor, "B S K"]) -> Float[Tensor, "B T S"]:
        both = torch.tanh(self.query(queries)[:, :, None] + keys[:, None])
        scores: Tensor = self.score(both)
        return scores.squeeze(-1)


class MultiplicativeAttention(Attention):
    """Multiplicative attention: dot product of query and key over the square root of D (Luong et al. 2015, scaled).

    Args:
        width: features of a query and of the memory.
    """

    def scores(self, queries: Float[Tensor, "B T D"], keys: Float[Tensor, "B S K"]) -> Float[Tensor, "B T S"]:
        scores: Tensor = queries @ keys.transpose(1, 2) * float(keys.shape[-1] ** -0.5)
        return scores


class CrossAttention(nn.Module):
    """Multi-head cross-attention of a Transformer to a memory (Vaswani et al. 2017, section 3.2.3).

    Args:
        width: features in and out.
        heads: number of heads; must divide the width.
        dropout: fraction of the attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.remember = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(
        self, inputs: Float[Tensor, "B T D"], memory: Tensor, keep: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B M S F"]]:
        """Return the outputs, and the memory's keys and values, which replace its values (B, S, D) in later calls."""
        query, memory = self._project(inputs, memory)
        key, value = memory.chunk(2, 1)
        rate = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=keep[:, None, None], dropout_p=rate)
        return self.output(attended.transpose(1, 2).flatten(2)), memory

    def weights(
        self, inputs: Float[Tensor, "B T D"], memory: Tensor, keep: Bool[Tensor, "B S"]
    ) -> Float[Tensor, "B T S"]:
        """Return the attention weights averaged over heads; the memory as in `forward`."""
        query, memory = self._project(inputs, memory)
        scores: Tensor = (query @ memory.chunk(2, 1)[0].transpose(2, 3)).float() * float(query.shape[-1] ** -0.5)
        return scores.masked_fill(~keep[:, None, None], -torch.inf).softmax(-1).mean(1)

    def _project(self, inputs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries (B, N, T, F), and the memory's keys and values (B, 2N, S, F)."""
        if memory.dim() == 3:
            memory = self.remember(memory).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2)
        return self.query(inputs).unflatten(-1, (self.heads, -1)).transpose(1, 2), memory
