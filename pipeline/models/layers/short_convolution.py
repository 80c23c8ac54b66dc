"""A causal convolution of each feature with a few taps, as one sum of products per tap.

Legend: B sequences, T positions, S positions with the past, K taps, D features.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import BackwardCFunction


def short_convolution(extended: Float[Tensor, "B S D"], taps: Float[Tensor, "K D"]) -> Float[Tensor, "B T D"]:
    """Return sum_k taps_k * extended_{t+k}; the first K - 1 positions are the past and have no output."""
    return _differentiable(extended.to(torch.promote_types(extended.dtype, taps.dtype)), taps)


class _ShortConvolution(torch.autograd.Function):
    """The sum of products, whose gradients need no tensor per tap."""

    @staticmethod
    def forward(ctx: BackwardCFunction, extended: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(extended, taps)
        length = extended.shape[1] - len(taps) + 1
        outputs = extended[:, :length] * taps[0]
        for k in range(1, len(taps)):
            outputs.addcmul_(extended[:, k : k + length], taps[k])
        return outputs

    @staticmethod
    def backward(ctx: BackwardCFunction, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        extended, taps = list(ctx.saved_tensors)
        (gradient,), length = gradients, gradients[0].shape[1]
        before = torch.zeros_like(extended)
        for k in range(len(taps)):
            before[:, k : k + length].addcmul_(gradient, taps[k])
        products = [(gradient * extended[:, k : k + length]).sum((0, 1)) for k in range(len(taps))]
        return before, torch.stack(products)


_differentiable: Callable[[Tensor, Tensor], Tensor] = _ShortConvolution.apply
