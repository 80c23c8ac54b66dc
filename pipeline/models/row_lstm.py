"""A Row LSTM reads an image row by row; each cell reads past inputs of its row and the cells above it.

Van den Oord, Kalchbrenner and Kavukcuoglu (2016), "Pixel Recurrent Neural Networks", equation 3, for row i, with
convolutions of states to states K_ss and, masked, of inputs to states K_is:
    o, f, i, g = sigmoid, sigmoid, sigmoid, tanh of (K_ss * h_{i-1} + K_is * x_i)
    c_i = f c_{i-1} + i g,   h_i = o tanh(c_i)
K_ss reads the row above, so the pixels of a row that do not depend on each other are computed at once.

Legend: B images, T positions, P positions of the past, D features, H features of a layer.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pipeline.models.layers.feedforward import initialise
from pipeline.models.layers.raster import MaskedConvolution, RasterStack, column_exists, gather_taps, half_width
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.state import append, latest_positions
from pipeline.tasks.pixel_model import PixelModel
from pipeline.tasks.token_prediction import TokenHead

__all__ = ["RowLSTM", "RowLSTMModel"]


class RowLayer(nn.Module):
    """One Row LSTM.

    Args:
        width: features in and out.
        hidden: H.
        side: columns in the receptive field to each side; in the cell's own row to the left only.
        columns: tokens of a row of the image.
        dropout: fraction of the hidden features dropped in training.
    """

    def __init__(self, width: int, hidden: int, side: int, columns: int, dropout: float) -> None:
        super().__init__()
        if side >= columns:
            raise ValueError(f"columns={columns} must exceed the kernel's columns to the right, {side}")
        self.hidden, self.columns = hidden, columns
        self.norm = nn.LayerNorm(width)
        self.input = MaskedConvolution(width, 4 * hidden, [(0, right) for right in range(-side, 1)], columns)
        self.rights = range(-side, side + 1)
        self.recurrent = nn.Linear(len(self.rights) * hidden, 4 * hidden, bias=False)
        self.mix = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        initialise(self.recurrent)
        initialise(self.mix)
        nn.init.constant_(self.input.kernel.bias[hidden : 2 * hidden], 1.0)  # The forget gate starts open.

    def forward(
        self, inputs: Float[Tensor, "B T D"], column: Int64[Tensor, "B T"], state: tuple[Tensor, ...] | None
    ) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, ...]]:
        """Process T more positions; the state is the last hidden states, cells and inputs."""
        above, cells, past = (None, None, None) if state is None else state
        gates, past = self.input(self.norm(inputs), column, past)
        if above is None or cells is None:
            above = gates.new_zeros(len(gates), self.columns + self.rights[-1], self.hidden)
            cells = gates.new_zeros(len(gates), self.columns, self.hidden)
        above, cells = above.to(gates.dtype), cells.to(gates.dtype)
        if torch.is_grad_enabled():  # a later step without gradients may extend the same state in place
            above, cells = above.clone(), cells.clone()
        keep, pieces = column_exists(column, self.rights, self.columns), []
        at_once = self.columns - self.rights[-1]
        for found, seen in zip(torch.split(gates, at_once, 1), torch.split(keep, at_once, 1), strict=True):
            outputs, cells = self._step(found, seen, above, cells)
            above = latest_positions(append(above, outputs, 1), above.shape[1], 1)
            pieces.append(outputs)
        return inputs + self.mix(self.dropout(torch.cat(pieces, 1))), (above, cells, past)

    def _step(self, gates: Tensor, keep: Tensor, above: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden states of the next positions, which are independent of each other, and the last cells."""
        backs = [self.columns - right for right in self.rights]
        gates = gates + self.recurrent(gather_taps(above, above.shape[1], backs, keep))
        admit, forget, read, content = gates.chunk(4, -1)
        length = gates.shape[1]
        new = torch.sigmoid(forget) * cells[:, :length] + torch.sigmoid(admit) * torch.tanh(content)
        return torch.sigmoid(read) * torch.tanh(new), latest_positions(append(cells, new, 1), self.columns, 1)


class RowLSTM(RasterStack):
    """A masked convolution, then a stack of Row LSTMs over the pixels of an image, in raster-scan order.

    The state is the number of positions read (B), and a list with the convolution's last inputs and, for each layer,
    a row of its last hidden states, cells and inputs.

    Args:
        width: features in and out.
        depth: number of Row LSTMs.
        hidden: features of each of them (default: the width).
        kernel: width of the state-to-state convolution in pixels; the masked one covers its left half.
        first_kernel: side length of the first convolution in pixels.
        columns: tokens per row of the image; a RowLSTMModel sets it from the data.
        channels: tokens per pixel; a RowLSTMModel sets it from the data.
        dropout: fraction of the hidden features dropped in training.

    Raises:
        ValueError: the depth is below 1, or a kernel is wider than a row.
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
        side = half_width(kernel) * channels
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
