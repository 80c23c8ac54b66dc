"""The past inputs of layers with a finite receptive field, carried as state and prepended to new inputs.

The past of the first input is zeros, so a state of zeros is the initial state.

Legend: B sequences, T positions, S positions with the past, D features.
"""

from jaxtyping import Float
from torch import Tensor, cat

from pipeline.state import append, latest_positions


def prepend(
    past: Float[Tensor, "B {length} D"] | None, inputs: Float[Tensor, "B T D"], length: int
) -> tuple[Float[Tensor, "B {length}+T D"], Float[Tensor, "B {length} D"]]:
    """Return the inputs with the `length` inputs before them in front, and the past for the next call."""
    if past is None:
        past = inputs.new_zeros(inputs.shape[0], length, inputs.shape[2])
    extended = append(past.to(inputs.dtype), inputs, 1)
    return extended, latest_positions(extended, length, 1)


def windows(extended: Float[Tensor, "B S D"], size: int, dilation: int = 1) -> Float[Tensor, "B T {size}*D"]:
    """Return each position concatenated with the `size - 1` before it, `dilation` apart, oldest first.

    The first `(size - 1) * dilation` positions of `extended` are the past and have no output. Multiplied by a weight
    matrix, the windows give a causal convolution at the speed of a matrix product.
    """
    length = extended.shape[1] - (size - 1) * dilation
    pieces = [extended[:, k * dilation : k * dilation + length] for k in range(size)]
    return cat(pieces, 2)
