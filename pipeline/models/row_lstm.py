"""A Row LSTM goes down an image row by row; each pixel's cell reads its own row's past and the cells above it.

Van den Oord, Kalchbrenner and Kavukcuoglu (2016), "Pixel Recurrent Neural Networks", equation 3, for row i, with
convolutions of states to states K_ss and, masked, of inputs to states K_is:
    o, f, i, g = sigmoid, sigmoid, sigmoid, tanh of (K_ss * h_{i-1} + K_is * x_i)
    c_i = f c_{i-1} + i g,   h_i = o tanh(c_i)
K_ss reaches up by a row, so as many pixels as lie between two such reaches are computed at once.

Legend: B images, T positions, P positions of the past, D features, H features of a layer.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pipeline.models.layers.feedforward import initialise
from pipeline.models.layers.raster import MaskedConvolution, RasterStack, gathered, half_of, inside
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.pixel_model import PixelModel
from pipeline.tasks.token_prediction import TokenHead

__all__ = ["RowLSTM", "RowLSTMModel"]


class RowLayer(nn.Module):
    """One Row LSTM.

    Args:
        width: features in and out.
        hidden: H.
        side: columns that a cell sees to each side, of its own row to the left only.
        columns: tokens of a row of the image.
        dropout: fraction of the hidden features dropped in training.
    """

    def __init__(self, width: int, hidden: int, side: int, columns: int, dropout: float) -> None:
        super().__init__()
        if side >= columns:
            raise ValueError(f"columns={columns} must be more than a kernel sees to the right, {side}")
        self.hidden, self.columns = hidden, columns
        self.norm = nn.LayerNorm(width)
        self.input = MaskedConvolution(width, 4 * hidden, [(0, right) for right in range(-side, 1)], columns)
        self.rights = range(-side, side + 1)
        self.recurrent = nn.Linear(len(self.rights) * hidden, 4 * hidden, bias=False)
        self.mix = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        initialise(self.recurrent)
        initialise(self.mix)
        nn.init.constant_(self.input.kernel.bias[hidden : 2 * hidden], 1.0)  # cells remember from the first step

    def forward(
        self, inputs: Float[Tensor, "B T D"], column: Int64[Tensor, "B T"], state: tuple[Tensor, ...] | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, ...]]:
        """Read T more positions; the state is the last hidden states, the last cells and the last inputs."""
        above, cells, past = (None, None, None) if state is None else state
        gates, past = self.input(self.norm(inputs), column, past)
        if above is None or cells is None:
            above = gates.new_zeros(len(gates), self.columns + self.rights[-1], self.hidden)
            cells = gates.new_zeros(len(gates), self.columns, self.hidden)
        above, cells = above.to(gates.dtype), cells.to(gates.dtype)
        keep, pieces = inside(column, self.rights, self.columns), []
        at_once = self.columns - self.rights[-1]
        for found, seen in zip(torch.split(gates, at_once, 1), torch.split(keep, at_once, 1), strict=True):
            outputs, cells = self._step(found, seen, above, cells)
            above = torch.cat([above, outputs], 1)[:, outputs.shape[1] :]
            pieces.append(outputs)
        return inputs + self.mix(self.dropout(torch.cat(pieces, 1))), (above.clone(), cells.clone(), past)

    def _step(self, gates: Tensor, keep: Tensor, above: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of the next positions, none of which sees another, and the last cells."""
        backs = [self.columns - right for right in self.rights]
        gates = gates + self.recurrent(gathered(above, above.shape[1], backs, keep))
        admit, forget, read, content = gates.chunk(4, -1)
        length = gates.shape[1]
        new = torch.sigmoid(forget) * cells[:, :length] + torch.sigmoid(admit) * torch.tanh(content)
        return torch.sigmoid(read) * torch.tanh(new), torch.cat([cells[:, length:], new], 1)


class RowLSTM(RasterStack):
    """A masked convolution, then a stack of Row LSTMs over the pixels of an image, in raster-scan order.

    The state is how many positions were read (B), and a list with the convolution's last inputs and, for each layer,
    its last hidden states, cells and inputs: a row of them.

    Args:
        width: features in and out.
        depth: number of Row LSTMs.
        hidden: features of each of them; by default the width.
        kernel: pixels of a row that a cell sees above it, and half of them to its left.
        first_kernel: pixels of a side of what the convolution sees.
        columns: tokens of a row of the image; a RowLSTMModel learns them from the data.
        channels: tokens of a pixel; the same.
        dropout: fraction of the hidden features dropped in training.

    Raises:
        ValueError: the depth is below 1, or a kernel wider than a row.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 2,
        hidden: int | None = None,
        kernel: int = 3,
        first_kernel: int = 7,
        columns: int = 28,
        channels: int = 1,
        dropout: float = 0.0,
    ) -> None:
        side = half_of(kernel) * channels
        layers = [RowLayer(width, hidden or width, side, columns, dropout) for _ in range(depth)]
        super().__init__(width, first_kernel, columns, channels, layers)


class RowLSTMModel(PixelModel):
    """A pixel model whose network is a `RowLSTM`."""

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
        made = RowLSTM(columns=columns * channels, channels=channels, **network)
        super().__init__(made, vocab_size, levels, rows, columns, channels, head, optimizer, schedule)
