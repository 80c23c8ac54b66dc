"""A PixelCNN predicts each pixel from those above it and to its left by masked convolutions.

Van den Oord, Kalchbrenner and Kavukcuoglu (2016), "Pixel Recurrent Neural Networks": a first convolution that does not
see its own position (mask A), then residual layers that do (mask B). Each layer is gated as in van den Oord et al.
(2016), "Conditional Image Generation with PixelCNN Decoders", equation 2, over features u:
    x <- x + R (tanh(F * u) * sigmoid(G * u)),   u = norm(x)
As in the first paper, there is one stack, which leaves a blind spot at the upper right.

Legend: B images, T positions, P positions of the past, D features.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pipeline.models.layers.feedforward import initialise
from pipeline.models.layers.raster import MaskedConvolution, RasterStack, taps
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.pixel_model import PixelModel
from pipeline.tasks.token_prediction import TokenHead

__all__ = ["PixelCNN", "PixelCNNModel"]


class GatedMaskedConvolution(nn.Module):
    """A gated masked convolution (mask B) with a residual connection.

    Args:
        width: features in and out.
        convolution: a convolution with 2 * hidden output features.
        hidden: features of the gated convolution.
        dropout: fraction of the gated features dropped in training.
    """

    def __init__(self, width: int, convolution: MaskedConvolution, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.convolution = convolution
        self.mix = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        initialise(self.mix)

    def forward(
        self, inputs: Float[Tensor, "B T D"], column: Int64[Tensor, "B T"], past: Float[Tensor, "B P D"] | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B P D"]]:
        """Process T more positions."""
        found, past = self.convolution(self.norm(inputs), column, past)
        content, gate = found.chunk(2, -1)
        return inputs + self.mix(self.dropout(torch.tanh(content) * torch.sigmoid(gate))), past


class PixelCNN(RasterStack):
    """A stack of masked convolutions over the pixels of an image, in raster-scan order.

    The state is the number of positions read (B), and a list with the last rows of each layer's inputs.

    Args:
        width: features in and out.
        depth: number of layers after the first.
        hidden: features inside each layer (default: the width).
        kernel: side length of a layer's convolution in pixels.
        first_kernel: side length of the first convolution in pixels.
        columns: tokens per row of the image; a PixelCNNModel sets it from the data.
        channels: tokens per pixel; a PixelCNNModel sets it from the data.
        dropout: fraction of the gated features dropped in training.

    Raises:
        ValueError: the depth is below 1, or a kernel is wider than a row.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 7,
        hidden: int | None = None,
        kernel: int = 3,
        first_kernel: int = 7,
        columns: int = 28,
        channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        inner, seen = hidden or width, taps(kernel, channels, True)
        layers = [
            GatedMaskedConvolution(width, MaskedConvolution(width, 2 * inner, seen, columns), inner, dropout)
            for _ in range(depth)
        ]
        super().__init__(width, first_kernel, columns, channels, layers)


class PixelCNNModel(PixelModel):
    """A pixel model whose network is a `PixelCNN`."""

    def __init__(
        self,
        vocab_size: int,
        levels: int,
        rows: int,
        columns: int,
        channels: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
        **network: Any,
    ) -> None:
        made = PixelCNN(columns=columns * channels, channels=channels, **network)
        super().__init__(made, vocab_size, levels, rows, columns, channels, head, optimizer, schedule)
