"""Conformer blocks: attention and convolution between two half-step feed-forward layers.

Gulati et al. (2020), "Conformer: Convolution-augmented Transformer for Speech Recognition":
    x <- x + FF(x) / 2,   x <- x + Attention(x),   x <- x + Conv(x),   x <- norm(x + FF(x) / 2)
with layer normalization instead of batch normalization, so that rows of a batch are independent, and rotary positions.

Legend: B sequences, T positions, D features.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers.attention import Rotation, SelfAttention, rotation
from pipeline.models.layers.feedforward import GELU, initialise


class ConformerConvolution(nn.Module):
    """A gated linear unit, a depthwise convolution, layer norm, swish and a pointwise convolution.

    Args:
        width: features in and out.
        kernel: size of the centered convolution, in positions; odd.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.apply(initialise)

    def forward(self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Convolve over the positions that `keep` marks."""
        gated = F.glu(self.gate(inputs), -1) * keep[..., None].to(inputs.dtype)
        around = self.convolution(gated.transpose(1, 2)).transpose(1, 2)
        outputs: Tensor = self.mix(F.silu(self.norm(around)))
        return outputs


class ConformerBlock(nn.Module):
    """A Conformer block; arguments as in `ConformerStack`."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.before, self.after = (GELU(width, 2 * width, dropout).apply(initialise) for _ in range(2))
        self.attention = SelfAttention(width, heads, dropout, causal=False).apply(initialise)
        self.convolution = ConformerConvolution(width, kernel)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"], turn: Rotation
    ) -> Float[Tensor, "B T D"]:
        """Process all positions; `keep` is False at padding."""
        first, second, third, fourth, last = self.norms
        visible = keep[:, None, None].expand(-1, 1, inputs.shape[1], -1)
        inputs = inputs + 0.5 * self.dropout(self.before(first(inputs)))
        inputs = inputs + self.dropout(self.attention(second(inputs), None, visible, turn)[0])
        inputs = inputs + self.dropout(self.convolution(third(inputs), keep))
        outputs: Tensor = last(inputs + 0.5 * self.dropout(self.after(fourth(inputs))))
        return outputs


class ConformerStack(nn.Module):
    """A stack of Conformer blocks.

    Args:
        width: features in and out.
        depth: number of blocks.
        heads: number of attention heads.
        kernel: size of the convolutions, in positions; odd.
        dropout: fraction of each layer's residual output dropped in training.

    Raises:
        ValueError: the kernel is even, or the heads do not divide the width into even parts.
    """

    def __init__(self, width: int, depth: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd, for a centered convolution")
        if width % heads or width // heads % 2:
            raise ValueError(f"heads={heads} must divide width={width} into even parts")
        self.features = width // heads
        self.layers = nn.ModuleList(ConformerBlock(width, heads, kernel, dropout) for _ in range(depth))

    def forward(self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Process all positions; `keep` is False at padding."""
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        turn = rotation(positions[None], self.features, inputs.dtype)
        for layer in self.layers:
            inputs = layer(inputs, keep, turn)
        return inputs
