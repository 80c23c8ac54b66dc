"""Dilated causal convolutions, whose receptive field doubles with every layer.

Van den Oord et al. (2016), "WaveNet"; Bai, Kolter and Koltun (2018), "An Empirical Evaluation of Generic
Convolutional and Recurrent Networks for Sequence Modeling". With dilation d and kernel K, layer by layer:
    z_t = tanh(F u_t) * sigmoid(G u_t),   u_t = norm(x)_{t-(K-1)d}, ..., norm(x)_{t-d}, norm(x)_t
    x_t <- x_t + R z_t   (residual),   s_t <- s_t + S z_t   (skip)
with the output y_t = W gelu(norm(s_t + x_t)).

Legend: B sequences, T positions, P positions of the past, D features, H features inside.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers.causal_history import prepend, windows
from pipeline.models.layers.feedforward import initialise
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["ConvNet", "ConvNetLanguageModel"]


class GatedConvolution(nn.Module):
    """A gated dilated causal convolution, which returns its residual and its skip output.

    Args:
        width: features in and out.
        hidden: features of the gated convolution.
        kernel: size of the convolution, in positions.
        dilation: distance between these positions.
        dropout: fraction of the gated features dropped in training.
    """

    def __init__(self, width: int, hidden: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.kernel = kernel
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Linear(kernel * width, 2 * hidden)
        self.mix = nn.Linear(hidden, 2 * width)
        self.dropout = nn.Dropout(dropout)
        self.apply(initialise)

    def forward(
        self, inputs: Float[Tensor, "B T D"], past: Float[Tensor, "B P D"] | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"], Float[Tensor, "B P D"]]:
        """Return the residual output, the skip output, and the last inputs as state for the next call."""
        extended, past = prepend(past, self.norm(inputs), (self.kernel - 1) * self.dilation)
        content, gate = self.convolution(windows(extended, self.kernel, self.dilation)).chunk(2, -1)
        residual, skip = self.mix(self.dropout(torch.tanh(content) * torch.sigmoid(gate))).chunk(2, -1)
        return residual, skip, past

    def gate_values(
        self, inputs: Float[Tensor, "B T D"], past: Float[Tensor, "B P D"] | None
    ) -> dict[str, Float[Tensor, "B T H"]]:
        """Return the gate's values at all positions, from 0 (closed) to 1."""
        extended, _ = prepend(past, self.norm(inputs), (self.kernel - 1) * self.dilation)
        _, gate = self.convolution(windows(extended, self.kernel, self.dilation)).chunk(2, -1)
        return {"gate": torch.sigmoid(gate)}


class ConvNet(nn.Module):
    """A stack of gated dilated causal convolutions with residual and skip connections.

    An output is a function of the last `receptive_field` inputs, including its own. The state is a list with one
    tensor per layer, its last inputs, of shape (B, (kernel - 1) * dilation, D).

    Args:
        width: features in and out.
        depth: number of layers.
        hidden: features inside each layer (default: the width).
        kernel: size of each convolution, in positions.
        cycle: number of layers after which the dilation restarts at 1: 1, 2, 4, ... 2^(cycle-1), 1, 2, ...
        dropout: fraction of the gated features dropped in training.

    Raises:
        ValueError: the depth or the cycle is below 1, or the kernel below 2.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 8,
        hidden: int | None = None,
        kernel: int = 2,
        cycle: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth < 1 or cycle < 1:
            raise ValueError(f"depth={depth} and cycle={cycle} must be at least 1")
        if kernel < 2:
            raise ValueError(f"kernel={kernel} must be at least 2 to cover more than one position")
        dilations = [2 ** (index % cycle) for index in range(depth)]
        self.width = width
        self.receptive_field = 1 + (kernel - 1) * sum(dilations)
        self.layers = nn.ModuleList(
            GatedConvolution(width, hidden or width, kernel, dilation, dropout) for dilation in dilations
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)
        initialise(self.output)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        pasts = [None] * len(self.layers) if state is None else state
        skips, after = torch.zeros_like(inputs), []
        for layer, past in zip(self.layers, pasts, strict=True):
            residual, skip, past = layer(inputs, past)
            inputs, skips = inputs + residual, skips + skip
            after.append(past)
        return self.output(F.gelu(self.norm(skips + inputs))), after


class ConvNetLanguageModel(LanguageModel):
    """A language model whose network is a `ConvNet`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(ConvNet(**network), vocab_size, head, optimizer, schedule)
