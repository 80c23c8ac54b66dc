"""Multi-head self-attention with rotary positions and a key/value cache.

Vaswani et al. (2017), "Attention Is All You Need": softmax(Q K^T / sqrt(F)) V in each head. Rotary positions
follow Su et al. (2021), "RoFormer": pair f of the features at position p is rotated by the angle
p / 10000^(2f/F), so that attention scores depend on the distance alone.

The cache is right-aligned: in every row, its last slot is the position just before the new ones. If a row has read
fewer positions than the cache has slots, its first slots are empty.

Legend: B sequences, T new positions, S cached positions, D features, N heads, F features of a head.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pipeline.models.layers.local_attention import Local, attend
from pipeline.state import append

Rotation = tuple[Tensor, Tensor]
Cache = tuple[Tensor, Tensor]


def rotation(positions: Int64[Tensor, "#B T"], features: int, dtype: torch.dtype) -> Rotation:
    """Return cosines and signed sines of the rotary angles, each of shape (#B, 1, T, F), in float32 or above."""
    exact = torch.promote_types(dtype, torch.float32)
    pairs = torch.arange(0, features, 2, device=positions.device, dtype=exact)
    angles = positions[:, None, :, None].to(exact) * 10000.0 ** (-pairs / features)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)


def rotate(features: Float[Tensor, "*K B N T F"], by: Rotation) -> Float[Tensor, "*K B N T F"]:
    """Rotate each pair (feature f, feature f + F/2) by its angle."""
    cosine, sine = by
    turned = features * cosine + features.roll(features.shape[-1] // 2, -1) * sine
    return turned.to(features.dtype)


def visible(
    count: Int64[Tensor, " B"], new: int, cached: int, window: int | None
) -> Bool[Tensor, "B 1 {new} {cached}+{new}"]:
    """Return the attention mask: True for earlier positions within the window in slots that the row has filled."""
    query = torch.arange(cached, cached + new, device=count.device)[:, None]
    key = torch.arange(cached + new, device=count.device)
    keep = key <= query
    if window is not None:
        keep = keep & (key > query - window)
    filled = key >= cached - count[:, None]
    return (keep & filled[:, None])[:, None]


class SelfAttention(nn.Module):
    """Multi-head self-attention over the cache and the new positions.

    Args:
        width: features in and out.
        heads: number of heads; must divide the width.
        dropout: fraction of the attention weights dropped in training.
        causal: attend to earlier positions only if no mask is given.
    """

    def __init__(self, width: int, heads: int, dropout: float, causal: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.causal = causal
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(
        self,
        inputs: Float[Tensor, "B T D"],
        cache: Cache | None,
        keep: Bool[Tensor, "#B 1 T _"] | Local | None,
        turn: Rotation | None,
    ) -> tuple[Float[Tensor, "B T D"], Cache]:
        """Return the outputs, and the keys and values of all positions, each of shape (B, N, S+T, F).

        Without `keep`, a position attends to all, or to all earlier ones if attention is causal; with a cache there is
        then one new position.
        """
        query, key, value = self._heads(inputs, cache, turn)
        attended = attend(query, key, value, keep, self.dropout if self.training else 0.0, self.causal)
        return self.output(attended.transpose(1, 2).flatten(2)), (key, value)

    def weights(
        self,
        inputs: Float[Tensor, "B T D"],
        cache: Cache | None,
        keep: Bool[Tensor, "#B 1 T _"] | Local | None,
        turn: Rotation | None,
    ) -> Float[Tensor, "B N T S"]:
        """Return the attention weights of each head over the cached and the new positions."""
        query, key, _ = self._heads(inputs, cache, turn)
        scores: Tensor = (query @ key.transpose(2, 3)).float() * float(query.shape[-1] ** -0.5)
        cached = scores.shape[3] - scores.shape[2]
        keep = keep.mask(scores.shape[2], scores.device) if isinstance(keep, Local) else keep
        if keep is None and self.causal:
            keep = torch.ones_like(scores[:1, :1], dtype=torch.bool).tril(cached)
        return (scores if keep is None else scores.masked_fill(~keep, -torch.inf)).softmax(-1)

    def _heads(self, inputs: Tensor, cache: Cache | None, turn: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, N, T, F) of the new positions, and keys and values (B, N, S, F) of all positions."""
        split = self.project(inputs).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        if turn is not None and inputs.shape[1] == 1:
            query, key = rotate(split[:2], turn).unbind(0)  # one call per operation, which a step of generation counts
        elif turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)  # half the memory of intermediate results
        if cache is not None:
            key, value = append(cache[0].to(key.dtype), key, 2), append(cache[1].to(value.dtype), value, 2)
        return query, key, value
