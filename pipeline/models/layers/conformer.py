"""A Conformer block looks far by attention and near by convolution, between two halves of a position-wise layer.

Gulati et al. (2020), "Conformer: Convolution-augmented Transformer for Speech Recognition":
    x <- x + FF(x) / 2,   x <- x + Attention(x),   x <- x + Conv(x),   x <- norm(x + FF(x) / 2)
with layer normalisation for batch normalisation, so that rows of a batch do not see each other, and rotary positions.

Legend: B sequences, T positions, D features.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers.attention import Rotation, SelfAttention, rotation
from pipeline.models.layers.feedforward import GELU, initialise


class ConformerConvolution(nn.Module):
    """A gate, a convolution of each feature over time, a norm and a swish, and a mixing of the features.

    Args:
        width: features in and out.
        kernel: positions that the convolution sees, its own in the middle; odd.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.apply(initialise)

    def forward(self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Let every position see those around it."""
        gated = F.glu(self.gate(inputs), -1) * keep[..., None].to(inputs.dtype)
        around = self.convolution(gated.transpose(1, 2)).transpose(1, 2)
        outputs: Tensor = self.mix(F.silu(self.norm(around)))
        return outputs


class ConformerBlock(nn.Module):
    """One block; arguments as of `ConformerStack`."""

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.before, self.after = (GELU(width, 2 * width, dropout).apply(initialise) for _ in range(2))
        self.attention = SelfAttention(width, heads, dropout).apply(initialise)
        self.convolution = ConformerConvolution(width, kernel)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"], turn: Rotation
    ) -> Float[Tensor, "B T D"]:
        """Read all positions; `keep` is True where there is something."""
        first, second, third, fourth, last = self.norms
        visible = keep[:, None, None].expand(-1, 1, inputs.shape[1], -1)
        inputs = inputs + 0.5 * self.dropout(self.before(first(inputs)))
        inputs = inputs + self.dropout(self.attention(second(inputs), None, visible, turn)[0])
        inputs = inputs + self.dropout(self.convolution(third(inputs), keep))
        outputs: Tensor = last(inputs + 0.5 * self.dropout(self.after(fourth(inputs))))
        return outputs


class ConformerStack(nn.Module):
    """Conformer blocks, one after the other.

    Args:
        width: features in and out.
        depth: number of blocks.
        heads: number of attention heads.
        kernel: positions that a convolution sees; odd.
        dropout: fraction of what each layer adds that is dropped in training.

    Raises:
        ValueError: an even kernel, or heads that do not divide the width into even parts.
    """

    def __init__(self, width: int, depth: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel={kernel} must be odd: as many positions before as after")
        if width % heads or width // heads % 2:
            raise ValueError(f"heads={heads} must divide width={width} into even parts")
        self.features = width // heads
        self.layers = nn.ModuleList(ConformerBlock(width, heads, kernel, dropout) for _ in range(depth))

    def forward(self, inputs: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Let every position look at all that are kept, and see those around it."""
        positions = torch.arange(inputs.shape[1], device=inputs.device).expand(len(inputs), -1)
        turn = rotation(positions, self.features, inputs.dtype)
        for layer in self.layers:
            inputs = layer(inputs, keep, turn)
        return inputs
