"""Masked convolutions over images as sequences of pixels in raster-scan order.

A pixel network reads at position t the previous pixel (the label or EOS at t = 0). It predicts the pixel at t, in row
t // W and column t % W. A tap (i, j) of a convolution reads the pixel i rows up and j columns to the right. In the
sequence, that is i W - j positions back, or zeros if the row has no such column. A masked convolution is therefore a
matrix product over past positions of the sequence (`causal_history.py`), and its taps define the mask.

Legend: B images, T positions, P positions of the past, S positions with the past, K taps, D features, E features out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers.causal_history import prepend
from pipeline.models.layers.feedforward import initialise
from pipeline.state import State

Tap = tuple[int, int]  # rows up, columns to the right


def taps(kernel: int, channels: int, center: bool) -> list[Tap]:
    """Return the taps of a masked convolution, the farthest back first.

    Args:
        kernel: side length of the unmasked kernel in pixels.
        channels: tokens per pixel; columns are counted in tokens.
        center: whether it includes its own position (mask B) or not (mask A).

    Raises:
        ValueError: the kernel is even, or has no taps.
    """
    half = half_width(kernel, 1 if center else 3)
    side = half * channels
    above = [(up, right) for up in range(half, 0, -1) for right in range(-side, side + 1)]
    return above + [(0, right) for right in range(-side, 0)] + [(0, 0)] * center


def half_width(kernel: int, least: int = 1) -> int:
    """Return the number of pixels to each side of a kernel's center.

    Args:
        kernel: side length in pixels.
        least: minimum side length.

    Raises:
        ValueError: the kernel is even, or below the minimum.
    """
    if kernel % 2 == 0 or kernel < least:
        raise ValueError(f"kernel={kernel}: expected an odd number of pixels, at least {least}")
    return kernel // 2


def column_of(before: Int64[Tensor, " B"], length: int, columns: int) -> Int64[Tensor, "B T"]:
    """Return the column of each of the next positions.

    Args:
        before: number of positions already read.
        length: T.
        columns: tokens per row of the image.
    """
    return (before[:, None] + torch.arange(length, device=before.device)) % columns


def column_exists(column: Int64[Tensor, "B T"], rights: Sequence[int], columns: int) -> Bool[Tensor, "B T K"]:
    """Return True where the column at each distance to the right exists."""
    target = column[..., None] + torch.tensor(rights).to(column.device, non_blocking=True)
    return (target >= 0) & (target < columns)


def gather_taps(
    extended: Float[Tensor, "B S D"], first: int, backs: Sequence[int], keep: Bool[Tensor, "B T K"]
) -> Float[Tensor, "B T K*D"]:
    """Return for each of T positions the features at K distances back, zeros where they are masked.

    Args:
        extended: the past, followed by the T positions.
        first: index of the first of the T positions.
        backs: K distances.
        keep: mask of the taps.
    """
    length = keep.shape[1]
    pieces = [extended[:, first - back : first - back + length] * keep[..., k, None] for k, back in enumerate(backs)]
    return torch.cat(pieces, 2)


class MaskedConvolution(nn.Module):
    """A convolution over pixels that reads no later pixel.

    Args:
        width: features in.
        outputs: features out.
        taps: rows up and columns to the right of each tap.
        columns: tokens per row of the image.
        own: True if the inputs are features of the positions themselves. False if they are the network's inputs, each
            the previous pixel; the last one is then read across the edge of a row, so that the first pixel reads the
            label or EOS.

    Raises:
        ValueError: a tap exceeds a row.
    """

    def __init__(self, width: int, outputs: int, taps: Sequence[Tap], columns: int, own: bool = True) -> None:
        super().__init__()
        self.columns = columns
        self.backs = [up * columns - right - (not own) for up, right in taps]
        self.rights = [right for _, right in taps]
        if min(self.backs) < 0:
            raise ValueError(f"columns={columns} must exceed the kernel's columns to the right, {max(self.rights)}")
        self.always = None if own else self.backs.index(0)
        self.kernel = nn.Linear(len(taps) * width, outputs)
        initialise(self.kernel)

    def forward(
        self, inputs: Float[Tensor, "B T D"], column: Int64[Tensor, "B T"], past: Float[Tensor, "B P D"] | None
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B P D"]]:
        """Return the outputs, and the last inputs for the next call."""
        length = max(self.backs)
        extended, past = prepend(past, inputs, length)
        keep = column_exists(column, self.rights, self.columns)
        if self.always is not None:
            keep[..., self.always] = True
        return self.kernel(gather_taps(extended, length, self.backs, keep)), past


class RasterStack(nn.Module):
    """A masked convolution that excludes its own position (mask A), followed by layers that include it.

    The state is the number of positions read (B), and a list with the state of each layer.

    Args:
        width: features in and out.
        first_kernel: side length of the first convolution in pixels.
        columns: tokens per row of the image.
        channels: tokens per pixel.
        layers: each maps (B, T, D), the columns (B, T) and its state to (B, T, D) and its state.

    Raises:
        ValueError: `layers` is empty, or a kernel is wider than a row.
    """

    def __init__(self, width: int, first_kernel: int, columns: int, channels: int, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not layers:
            raise ValueError("depth must be at least 1")
        self.width, self.columns = width, columns
        self.first = MaskedConvolution(width, width, taps(first_kernel, channels, False), columns, own=False)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)
        initialise(self.output)

    def forward(self, inputs: Float[Tensor, "B T D"], state: State = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Process T more inputs; the output at each position predicts the next input."""
        if state is None:
            state = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device), [None] * (1 + len(self.layers))
        before, states = state
        column, after = column_of(before, inputs.shape[1], self.columns), []
        for layer, own in zip([self.first, *self.layers], states, strict=True):
            inputs, own = layer(inputs, column, own)
            after.append(own)
        return self.output(F.gelu(self.norm(inputs))), (before + inputs.shape[1], after)
