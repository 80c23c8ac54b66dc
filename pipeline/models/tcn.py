"""The temporal convolutional network (TCN): residual blocks of two dilated causal convolutions.

Bai, Kolter and Koltun (2018), "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
Modeling", arXiv:1803.01271, section 3. The dilation doubles per block. With * a causal convolution whose weights are
normalized (Salimans and Kingma 2016, equation 2: w = g v / |v|, for each output feature):
    z = dropout(relu(W * x)),   y = relu(R x + dropout(relu(V * z)))
where R is the identity, or a convolution of size 1 if the numbers of features differ.

Legend: B sequences, T positions, P positions of the past, D features, H features out of a block; `*S` any axes.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers.causal_history import prepend, windows
from pipeline.models.layers.recurrent import VariationalDropout
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import State
from pipeline.tasks.language_model import LanguageModel, TokenHead

__all__ = ["TCN", "TCNLanguageModel"]


class WeightNormLinear(nn.Linear):
    """A linear layer whose weight has a direction and a length per output feature.

    It starts as torch's linear layer: the lengths are those of the initial weights.

    Args:
        inputs: features in.
        outputs: features out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.length = nn.Parameter(torch.linalg.vector_norm(self.weight.detach(), dim=1))

    def forward(self, inputs: Float[Tensor, "*S D"]) -> Float[Tensor, "*S H"]:
        """Apply the layer at each position."""
        scale = self.length / torch.linalg.vector_norm(self.weight, dim=1)
        return F.linear(inputs, self.weight * scale[:, None], self.bias)


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions with a residual connection.

    Args:
        inputs: features in.
        outputs: features out.
        kernel: size of the convolutions, in positions.
        dilation: distance between these positions.
        dropout: fraction of the features dropped in training after each convolution.
        variational: drop the same features at all positions of a sequence.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, dilation: int, dropout: float, variational: bool
    ) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.first = WeightNormLinear(kernel * inputs, outputs)
        self.second = WeightNormLinear(kernel * outputs, outputs)
        self.dropout = VariationalDropout(dropout) if variational else nn.Dropout(dropout)
        self.residual = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)

    def forward(
        self, inputs: Float[Tensor, "B T D"], state: tuple[Float[Tensor, "B P D"], Float[Tensor, "B P H"]] | None
    ) -> tuple[Float[Tensor, "B T H"], tuple[Float[Tensor, "B P D"], Float[Tensor, "B P H"]]]:
        """Return the outputs, and the last inputs of both convolutions as state for the next call."""
        before = (None, None) if state is None else state
        inside, first = self._convolve(self.first, inputs, before[0])
        inside, second = self._convolve(self.second, inside, before[1])
        return F.relu(self.residual(inputs) + inside), (first, second)

    def _convolve(self, layer: nn.Module, inputs: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        extended, past = prepend(past, inputs, (self.kernel - 1) * self.dilation)
        return self.dropout(F.relu(layer(windows(extended, self.kernel, self.dilation)))), past


class TCN(nn.Module):
    """A stack of residual blocks, with a dilation of 1, 2, 4, ... 2^(depth-1).

    An output is a function of the last `receptive_field` inputs, including its own. The state is a list with one tuple
    per block: the last inputs of its two convolutions, of shape (B, (kernel - 1) * dilation, D).

    Args:
        width: features in and out.
        depth: number of blocks.
        hidden: features of all blocks but the last, which has `width` (default: the width).
        kernel: size of each convolution, in positions.
        dropout: fraction of the features dropped in training after each convolution.
        input_dropout: fraction of the input features dropped in training.
        variational: drop the same features at all positions of a sequence, as in the paper ("spatial dropout"); its
            code drops each position independently.

    Raises:
        ValueError: the depth is below 1, the kernel below 2, or a dropout rate is outside [0, 1).
    """

    def __init__(
        self,
        width: int = 256,
        depth: int = 4,
        hidden: int | None = None,
        kernel: int = 3,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        variational: bool = True,
    ) -> None:
        super().__init__()
        if depth < 1 or kernel < 2:
            raise ValueError(f"depth={depth} and kernel={kernel} must be at least 1 and 2")
        for rate in (dropout, input_dropout):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"dropout rate {rate}: expected a number in [0, 1)")
        self.width = width
        self.receptive_field = 1 + 2 * (kernel - 1) * (2**depth - 1)
        sizes = [width] + [hidden or width] * (depth - 1) + [width]
        self.layers = nn.ModuleList(
            TemporalBlock(sizes[level], sizes[level + 1], kernel, 2**level, dropout, variational)
            for level in range(depth)
        )
        self.input_dropout = VariationalDropout(input_dropout) if variational else nn.Dropout(input_dropout)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        inputs, after = self.input_dropout(inputs), []
        for layer, before in zip(self.layers, [None] * len(self.layers) if state is None else state, strict=True):
            inputs, layer_state = layer(inputs, before)
            after.append(layer_state)
        return inputs, after


class TCNLanguageModel(LanguageModel):
    """A language model whose network is a `TCN`."""

    def __init__(
        self,
        vocab_size: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        super().__init__(TCN(**network), vocab_size, head, optimizer, schedule)
