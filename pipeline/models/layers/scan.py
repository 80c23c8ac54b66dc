"""A scan of the linear recurrence h_t = a_t h_{t-1} + b_t, for decays a_t between 0 and 1.

Blelloch (1990), "Prefix Sums and Their Applications": two neighboring steps combine to one step
    h_{t+1} = (a_{t+1} a_t) h_{t-1} + (a_{t+1} b_t + b_{t+1}),
so a chunk of positions is one step of a shorter recurrence. The scan consists of products and sums alone, without
logarithms, so decays of 0 and 1 are exact and no decay overflows. A state of any shape is flattened to H features.

Legend: B sequences, T positions, H features, N chunks, C positions of a chunk.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FULL = 16384  # elements of a vector operation from which the cost of its call is small
FEWEST = 5  # chunks from which they save more calls than they add operations


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
        states = _method(update)(decay, update, initial)
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


def _method(update: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the fastest way to compute the scan on the device."""
    if torch.compiler.is_compiling():
        return by_halving
    if update.device.type == "cpu":
        return by_chunks
    if update.device.type == "cuda" and find_spec("triton") is not None:
        from pipeline.models.layers.scan_kernel import by_kernel

        return by_kernel
    return by_halving


def by_chunks(decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
    """Return the recurrence by a loop over positions.

    Where one position is a short vector, N chunks take each step of the loop together, from a state of zero. The
    states before the chunks follow from the chunks' last states, and complete the states inside.
    """
    rows, length, features = update.shape
    states = torch.empty_like(update, memory_format=torch.contiguous_format)
    count = min(FULL // max(rows * features, 1), isqrt(2 * length))
    whole = length // count * count if count >= FEWEST else 0
    if whole:
        chunks = (each[:, :whole].unflatten(1, (count, -1)) for each in (decay, update, states))
        initial = _fill_chunks(*chunks, initial)
    tails = (each[:, whole:].unbind(1) for each in (decay, update, states))
    _fill(*tails, initial)
    return states


def _fill_chunks(
    decay: Float[Tensor, "B N C H"],
    update: Float[Tensor, "B N C H"],
    states: Float[Tensor, "B N C H"],
    initial: Float[Tensor, "B H"],
) -> Float[Tensor, "B H"]:
    """Write the states of all chunks, and return the last."""
    product = torch.empty_like(states)  # of the decays from the first position of the chunk
    decays, products = decay.unbind(2), product.unbind(2)
    first = torch.zeros_like(initial)[:, None].expand_as(decays[0])
    last = _fill(decays, update.unbind(2), states.unbind(2), first)
    products[0].copy_(decays[0])
    for position in range(1, len(decays)):
        torch.mul(decays[position], products[position - 1], out=products[position])
    before = torch.empty_like(last, memory_format=torch.contiguous_format)
    before[:, 0] = initial
    _fill(products[-1][:, :-1].unbind(1), last[:, :-1].unbind(1), before[:, 1:].unbind(1), initial)
    states.addcmul_(product, before[:, :, None])
    return states[:, -1, -1]


def _fill(decays: Iterable[Tensor], updates: Iterable[Tensor], places: Iterable[Tensor], state: Tensor) -> Tensor:
    """Write the state after each step to its place, and return the last."""
    for decay, update, place in zip(decays, updates, places, strict=True):
        state = torch.addcmul(update, decay, state, out=place)
    return state


def by_halving(decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
    """Return the recurrence in 2 log2 T steps: the odd positions are a recurrence of half the length."""
    first = update[:, :1] + decay[:, :1] * initial[:, None]
    return _halve(decay, torch.cat([first, update[:, 1:]], 1))


def _halve(decay: Tensor, update: Tensor) -> Tensor:
    """Return the recurrence from h_0 = 0; the even positions follow from the odd ones."""
    length = update.shape[1]
    if length == 1:
        return update
    pairs = length - length % 2
    odd_decay = decay[:, 1::2]
    odd_update = torch.addcmul(update[:, 1::2], odd_decay, update[:, :pairs:2])
    odd = _halve(odd_decay * decay[:, :pairs:2], odd_update)
    states = torch.empty_like(update)
    states[:, 0] = update[:, 0]
    states[:, 1::2] = odd
    states[:, 2::2] = torch.addcmul(update[:, 2::2], decay[:, 2::2], odd[:, : (length - 1) // 2])
    return states
