"""A layer that looks back a fixed distance carries its last inputs and puts them in front of the new ones.

Nothing was read before the start: there the past is zeros, and so a state of zeros is the start.

Legend: B sequences, T positions, S positions with the past, D features.
"""

from jaxtyping import Float
from torch import Tensor, cat


def prepend(
    past: Float[Tensor, "B {length} D"] | None, inputs: Float[Tensor, "B T D"], length: int
) -> tuple[Float[Tensor, "B {length}+T D"], Float[Tensor, "B {length} D"]]:
    """The inputs with the `length` before them in front, and the past that the next inputs will need."""
    if past is None:
        past = inputs.new_zeros(inputs.shape[0], length, inputs.shape[2])
    extended = cat([past.to(inputs.dtype), inputs], 1)
    # a copy: a view would keep the whole of `extended` in memory and in checkpoints
    return extended, extended[:, inputs.shape[1] :].clone()


def windows(extended: Float[Tensor, "B S D"], size: int, dilation: int = 1) -> Float[Tensor, "B T {size}*D"]:
    """Each position beside the `size - 1` before it, `dilation` apart, oldest first.

    The first `(size - 1) * dilation` positions of `extended` are the past and get no window of their own.
    A product with a matrix makes it a causal convolution, as fast as a matrix product on any device.
    """
    length = extended.shape[1] - (size - 1) * dilation
    pieces = [extended[:, k * dilation : k * dilation + length] for k in range(size)]
    return cat(pieces, 2)
