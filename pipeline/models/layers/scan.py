"""A parallel scan of the linear recurrence h_t = a_t h_{t-1} + b_t, in 2 log2 T steps instead of T.

Blelloch (1990), "Prefix Sums and Their Applications": two neighboring steps combine to one step
    h_{t+1} = (a_{t+1} a_t) h_{t-1} + (a_{t+1} b_t + b_{t+1}),
so the odd positions are a recurrence of half the length, and the even positions follow from them. The scan consists
of products and sums alone, without logarithms, so decays between 0 and 1 cannot overflow.

Legend: B sequences, T positions, H features.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def scan(
    decay: Float[Tensor, "B T H"], update: Float[Tensor, "B T H"], initial: Float[Tensor, "B H"]
) -> Float[Tensor, "B T H"]:
    """Return all h_t of h_t = decay_t h_{t-1} + update_t, with h_0 = initial."""
    states: Tensor = _Scan.apply(decay, update, initial)  # type: ignore[no-untyped-call]
    return states


class _Scan(torch.autograd.Function):
    """The scan with its gradient, which is the same recurrence from the last position to the first."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
        first = update[:, :1] + decay[:, :1] * initial[:, None]
        states = _scan_from_zero(decay, torch.cat([first, update[:, 1:]], 1))
        ctx.save_for_backward(decay, initial, states)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        decay, initial, states = ctx.saved_tensors
        following = torch.cat([decay[:, 1:], torch.zeros_like(decay[:, :1])], 1)
        reversed_gradient = scan(following.flip(1), gradients[0].flip(1), torch.zeros_like(initial))
        gradient = reversed_gradient.flip(1)
        before = torch.cat([initial[:, None], states[:, :-1]], 1)
        return gradient * before, gradient, gradient[:, 0] * decay[:, 0]


def _scan_from_zero(decay: Tensor, update: Tensor) -> Tensor:
    """Return the recurrence from h_0 = 0, by recursive halving."""
    length = update.shape[1]
    if length == 1:
        return update
    pairs = length - length % 2
    odd_decay = decay[:, 1::2]
    odd_update = torch.addcmul(update[:, 1::2], odd_decay, update[:, :pairs:2])
    odd = _scan_from_zero(odd_decay * decay[:, :pairs:2], odd_update)
    states = torch.empty_like(update)
    states[:, 0] = update[:, 0]
    states[:, 1::2] = odd
    states[:, 2::2] = torch.addcmul(update[:, 2::2], decay[:, 2::2], odd[:, : (length - 1) // 2])
    return states
