"""Pixels in raster-scan order are a sequence whose neighbours above lie a row back: it is walked over as a text is.

A network of pixels reads at position t the pixel before (at position 0 what opens the image) and says the pixel at t,
in row t // W and column t % W. A tap (i, j) of a convolution looks at the pixel i rows up and j columns to the right;
on the sequence that is i W - j positions back, and nothing where the row has no such column. So a masked convolution,
its carried state and its single step are a few products on a sequence (`causal_history.py`); the mask is which taps
there are.

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
    """The taps of a masked convolution, the farthest back first.

    Args:
        kernel: pixels of its whole square, of which a half lies before the middle.
        channels: tokens of a pixel: columns are counted in tokens.
        center: whether it looks at its own position (mask B) or not (mask A).

    Raises:
        ValueError: a kernel without a middle, or which sees nothing.
    """
    half = half_of(kernel, 1 if center else 3)
    side = half * channels
    above = [(up, right) for up in range(half, 0, -1) for right in range(-side, side + 1)]
    return above + [(0, right) for right in range(-side, 0)] + [(0, 0)] * center


def half_of(kernel: int, least: int = 1) -> int:
    """How many pixels a kernel sees to each side of its middle.

    Args:
        kernel: pixels of its side.
        least: the smallest that sees something.

    Raises:
        ValueError: it has no middle, or sees nothing.
    """
    if kernel % 2 == 0 or kernel < least:
        raise ValueError(f"a kernel of {kernel} pixels: give an odd number, at least {least}")
    return kernel // 2


def column_of(before: Int64[Tensor, " B"], length: int, columns: int) -> Int64[Tensor, "B T"]:
    """The column that each of the next positions lies in.

    Args:
        before: positions that were read already.
        length: T.
        columns: of the image.
    """
    return (before[:, None] + torch.arange(length, device=before.device)) % columns


def inside(column: Int64[Tensor, "B T"], rights: Sequence[int], columns: int) -> Bool[Tensor, "B T K"]:
    """Whether there is a column so far to the right."""
    looked = column[..., None] + torch.tensor(rights, device=column.device)
    return (looked >= 0) & (looked < columns)


def gathered(
    extended: Float[Tensor, "B S D"], first: int, backs: Sequence[int], keep: Bool[Tensor, "B T K"]
) -> Float[Tensor, "B T K*D"]:
    """For each of T positions what lies so many positions back, zeros where nothing is to be seen.

    Args:
        extended: the past, and what of the T positions is looked at.
        first: where the first of the T positions lies in it.
        backs: K distances.
        keep: where something is to be seen.
    """
    length = keep.shape[1]
    pieces = [extended[:, first - back : first - back + length] * keep[..., k, None] for k, back in enumerate(backs)]
    return torch.cat(pieces, 2)


class MaskedConvolution(nn.Module):
    """A convolution over pixels that sees no later one.

    Args:
        width: features in.
        outputs: features out.
        taps: where it looks.
        columns: tokens of a row of the image.
        own: whether the inputs are features of the positions themselves; else they are those read there, each
            the pixel before, and the last of them is seen even past the edge of a row: so the first pixel sees
            what opens the image.

    Raises:
        ValueError: a tap that reaches farther than a row.
    """

    def __init__(self, width: int, outputs: int, taps: Sequence[Tap], columns: int, own: bool = True) -> None:
        super().__init__()
        self.columns = columns
        self.backs = [up * columns - right - (not own) for up, right in taps]
        self.rights = [right for _, right in taps]
        if min(self.backs) < 0:
            raise ValueError(f"columns={columns} must be more than a kernel sees to the right, {max(self.rights)}")
        self.always = None if own else self.backs.index(0)
        self.kernel = nn.Linear(len(taps) * width, outputs)
        initialise(self.kernel)

    def forward(
        self, inputs: Float[Tensor, "B T D"], column: Int64[Tensor, "B T"], past: Float[Tensor, "B P D"] | None
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B P D"]]:
        """Outputs, and the last inputs that the next call needs."""
        length = max(self.backs)
        extended, past = prepend(past, inputs, length)
        keep = inside(column, self.rights, self.columns)
        if self.always is not None:
            keep[..., self.always] = True
        return self.kernel(gathered(extended, length, self.backs, keep)), past


class RasterStack(nn.Module):
    """A masked convolution that does not see its own position, then layers that do.

    The state is how many positions were read (B), and a list with the state of each layer.

    Args:
        width: features in and out.
        first_kernel: pixels of a side of what the convolution sees.
        columns: tokens of a row of the image.
        channels: tokens of a pixel.
        layers: each maps (B, T, D), the columns (B, T) and its state to (B, T, D) and its state.

    Raises:
        ValueError: there is no layer, or a kernel wider than a row.
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
