"""A scan of the linear recurrence h_t = a_t h_{t-1} + b_t, for decays a_t between 0 and 1.

Blelloch (1990), "Prefix Sums and Their Applications": two neighboring steps combine to one step
    h_{t+1} = (a_{t+1} a_t) h_{t-1} + (a_{t+1} b_t + b_{t+1}),
so a chunk of positions is one step of a shorter recurrence. The scan consists of products and sums alone, without
logarithms, so decays of 0 and 1 are exact and no decay overflows. A state of any shape is flattened to H features.

Legend: B sequences, T positions, H features, N chunks, C positions of a chunk.
"""

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FULL = 16384  # elements of a vector operation from which the cost of its call is small
FEWEST = 5  # chunks from which they save more calls than they add operations


Method = Callable[[Tensor, Tensor, Tensor], Tensor]


def scan(
    decay: Float[Tensor, "B T H"], update: Float[Tensor, "B T H"], initial: Float[Tensor, "B H"]
) -> Float[Tensor, "B T H"]:
    """Return all h_t of h_t = decay_t h_{t-1} + update_t, with h_0 = initial."""
    return _differentiable(decay, update, initial, False)


class _Scan(torch.autograd.Function):
    """The scan with its gradient, which is the same recurrence in the other direction."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, update: Tensor, initial: Tensor, backwards: bool) -> Tensor:
        states = scan_values(decay, update, initial, backwards)
        ctx.save_for_backward(decay, initial, states)
        ctx.backwards = backwards
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        decay, initial, states = ctx.saved_tensors
        gradient = scan_gradient(decay, gradients[0], ctx.backwards)
        first = -1 if ctx.backwards else 0
        return gradient * earlier(states, initial, ctx.backwards), gradient, gradient[:, first] * decay[:, first], None


_differentiable: Callable[[Tensor, Tensor, Tensor, bool], Tensor] = _Scan.apply


def scan_gradient(decay: Tensor, gradient: Tensor, backwards: bool = False) -> Float[Tensor, "B T H"]:
    """Return the gradient of the updates, given the gradient of the states."""
    if backwards:
        rest = _differentiable(decay[:, :-1], gradient[:, 1:], gradient[:, 0], False)
        return torch.cat([gradient[:, :1], rest], 1)
    rest = _differentiable(decay[:, 1:], gradient[:, :-1], gradient[:, -1], True)
    return torch.cat([rest, gradient[:, -1:]], 1)


def earlier(states: Tensor, initial: Tensor, backwards: bool = False) -> Float[Tensor, "B T H"]:
    """Return the state before each step."""
    if backwards:
        return torch.cat([states[:, 1:], initial[:, None]], 1)
    return torch.cat([initial[:, None], states[:, :-1]], 1)


def scan_values(decay: Tensor, update: Tensor, initial: Tensor, backwards: bool = False) -> Float[Tensor, "B T H"]:
    """Return the states, without a gradient, by the fastest way on the device.

    Args:
        decay: a_t.
        update: b_t.
        initial: the state before the first step.
        backwards: start at the last position, and end at the first.
    """
    if update.device.type == "cpu" and not torch.compiler.is_compiling():
        return by_chunks(decay, update, initial, backwards)
    method = _method(update)
    if backwards:
        return method(decay.flip(1), update.flip(1), initial).flip(1)
    return method(decay, update, initial)


def _method(update: Tensor) -> Method:
    """Return the way to compute the scan in a compiled graph or on an accelerator."""
    if torch.compiler.is_compiling() or update.device.type != "cuda" or not _has_kernel(update.device):
        return by_halving
    from pipeline.models.layers.scan_kernel import by_kernel

    return by_kernel


@cache
def _has_kernel(device: torch.device) -> bool:
    """Return whether the Triton kernel runs on a device; it requires a C compiler, for example."""
    if find_spec("triton") is None:
        return False
    from pipeline.models.layers.scan_kernel import by_kernel

    try:
        by_kernel(*(torch.zeros(1, 2, 1, device=device),) * 2, torch.zeros(1, 1, device=device))
    except Exception as error:
        warnings.warn(f"the scan of the linear recurrence runs without Triton: {error!r:.300}", stacklevel=2)
        return False
    return True


def by_chunks(decay: Tensor, update: Tensor, initial: Tensor, backwards: bool = False) -> Tensor:
    """Return the recurrence by a loop over positions.

    Where one position is a short vector, N chunks take each step of the loop together, from a state of zero. The
    states before the chunks follow from the chunks' last states, and complete the states inside.
    """
    rows, length, features = update.shape
    states = torch.empty_like(update, memory_format=torch.contiguous_format)
    count = min(FULL // max(rows * features, 1), isqrt(2 * length))
    whole = length // count * count if count >= FEWEST else 0
    parts = slice(length - whole, length) if backwards else slice(whole)
    rest = slice(length - whole) if backwards else slice(whole, length)
    if whole:
        shape = (rows, count, whole // count, features)
        inside = [each[:, parts].view(shape) for each in (decay, update, states)]
        initial = _fill_chunks(inside[0], inside[1], inside[2], initial, backwards)
    after = [_steps(each[:, rest], 1, backwards) for each in (decay, update, states)]
    _fill(after[0], after[1], after[2], initial)
    return states


def _fill_chunks(
    decay: Float[Tensor, "B N C H"],
    update: Float[Tensor, "B N C H"],
    states: Float[Tensor, "B N C H"],
    initial: Float[Tensor, "B H"],
    backwards: bool,
) -> Float[Tensor, "B H"]:
    """Write the states of all chunks, and return the last."""
    product = torch.empty_like(states)  # of the decays from the first position of the chunk
    decays, updates, inside, products = (_steps(each, 2, backwards) for each in (decay, update, states, product))
    state = inside[0].copy_(updates[0])
    through = products[0].copy_(decays[0])
    for position in range(1, len(decays)):
        state = torch.addcmul(updates[position], decays[position], state, out=inside[position])
        through = torch.mul(decays[position], through, out=products[position])
    before = torch.empty_like(state, memory_format=torch.contiguous_format)
    throughs, ends, starts = (_steps(each, 1, backwards) for each in (through, state, before))
    starts[0].copy_(initial)
    _fill(throughs[:-1], ends[:-1], starts[1:], initial)
    states.addcmul_(product, before[:, :, None])
    return ends[-1]


def _fill(decays: list[Tensor], updates: list[Tensor], places: list[Tensor], state: Tensor) -> None:
    """Write the state after each step to its place."""
    for decay, update, place in zip(decays, updates, places, strict=True):
        state = torch.addcmul(update, decay, state, out=place)


def _steps(values: Tensor, axis: int, backwards: bool) -> list[Tensor]:
    """Return the slices of an axis in the order of the recurrence."""
    slices = list(values.unbind(axis))
    return slices[::-1] if backwards else slices


def by_halving(decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
    """Return the recurrence in 2 log2 T steps: the odd positions are a recurrence of half the length."""
    first = update[:, :1] + decay[:, :1] * initial[:, None]
    return _halve(decay, torch.cat([first, update[:, 1:]], 1))


def _halve(decay: Tensor, update: Tensor) -> Tensor:
    """Return the recurrence from h_0 = 0; the even positions follow from the odd ones."""
    length = update.shape[1]
    if length <= 1:
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
