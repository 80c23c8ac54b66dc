"""Position-wise feed-forward layers.

Legend: B sequences, T positions, D features.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class SwiGLU(nn.Module):
    """The gated layer of Shazeer (2020), "GLU Variants Improve Transformer": W3 (silu(W1 x) * W2 x).

    Args:
        width: features in and out.
        hidden: features inside (default: 8/3 of the width, rounded up to a multiple of 8, which has as many
            parameters as an ungated layer of four times the width).
        dropout: fraction of the inner features dropped in training.
    """

    def __init__(self, width: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = hidden or -(-8 * width // 24) * 8
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Transform each position."""
        outputs: Tensor = self.down(self.dropout(F.silu(self.gate(inputs)) * self.up(inputs)))
        return outputs


class GELU(nn.Module):
    """The ungated layer of Vaswani et al. (2017) with the activation of GPT: W2 gelu(W1 x + b1) + b2.

    Args:
        width: features in and out.
        hidden: features inside (default: four times the width).
        dropout: fraction of the inner features dropped in training.
    """

    def __init__(self, width: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = hidden or 4 * width
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Transform each position."""
        outputs: Tensor = self.down(self.dropout(F.gelu(self.up(inputs))))
        return outputs


def initialise(module: nn.Module) -> None:
    """Initialize linear layers to preserve the variance of their input, with zero biases; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
