"""The carried state of a network: a pytree of tensors, batch axis first, and the operations on it.

The operations work for any state: an LSTM's (h, c), a Transformer's key/value cache, an n-gram's last n-1 inputs.
`None` is the state before the first input.

A tensor that grows along an axis is a view of a buffer with free positions behind it (`append`), so a step copies only
what is new. The values of a state never change: only the newest view grows in place, and an older one is copied first.
Clone the tensors of a state to save it without the free positions.

Legend: B sequences.
"""

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

State = Any  # a pytree of tensors whose first axis is B, or None
LEAST_FREE = 64  # free positions of a new buffer


@dataclass
class Buffer:
    """The storage of tensors that grow along an axis."""

    positions: Tensor
    axis: int
    written: int
    """Number of positions written since the start; the next one is free."""

    def has_room(self, stop: int) -> bool:
        """Return whether positions before `stop` can be written here."""
        writable = torch.is_inference_mode_enabled() or not self.positions.is_inference()
        return writable and stop <= self.positions.shape[self.axis]


_views: MutableMapping[Tensor, tuple[Buffer, int]] = WeakTensorKeyDictionary()  # buffer, position after the last


def width_of(network: nn.Module) -> int:
    """Return the number of features D of a network's inputs and outputs per position."""
    width = network.width
    assert isinstance(width, int)
    return width


def map_state(function: Callable[[Tensor], Tensor], state: State) -> State:
    """Apply `function` to every tensor of the state."""
    return pytree.tree_map_only(Tensor, function, state)


def detach(state: State) -> State:
    """Detach the state from the graph: truncated backpropagation through time."""
    return map_state(lambda leaf: leaf.detach() if leaf.requires_grad else leaf, state)


def append(past: Tensor, new: Tensor, axis: int) -> Tensor:
    """Return `past` followed by `new` along an axis, as `torch.cat` does; without gradients, written in place."""
    length, size = past.shape[axis], new.shape[axis]
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or size > max(length, 1):
        return torch.cat([past, new], axis)  # More inputs than the past has are not steps of a generation.
    if past.shape[:axis] != new.shape[:axis] or past.shape[axis + 1 :] != new.shape[axis + 1 :]:
        return torch.cat([past, new], axis)  # which raises the error
    buffer, stop = _views.get(past, (None, 0))
    if buffer is None or stop < buffer.written or not buffer.has_room(stop + size):
        buffer, stop = _buffer_for(past, axis, length + size), length
        buffer.positions.narrow(axis, 0, length).copy_(past)
    buffer.written = stop + size
    buffer.positions.narrow(axis, stop, size).copy_(new)
    return _view(buffer, stop + size, length + size)


def latest_positions(whole: Tensor, size: int, axis: int) -> Tensor:
    """Return the last `size` positions along an axis.

    What `append` wrote in place stays a view. Others are copied: a view would keep all of `whole` in memory and in
    checkpoints.
    """
    buffer, stop = (None, 0) if torch.compiler.is_compiling() else _views.get(whole, (None, 0))
    if buffer is None:
        return whole.narrow(axis, whole.shape[axis] - size, size).clone()
    return _view(buffer, stop, size)


def select(state: State, index: Tensor) -> State:
    """Return rows `index` of the state: beam search keeps, drops and copies hypotheses with it."""
    return map_state(lambda leaf: _select(leaf, index), state)


def _select(leaf: Tensor, index: Tensor) -> Tensor:
    buffer, _ = _views.get(leaf, (None, 0))
    if buffer is None:
        return leaf.index_select(0, index)
    length = leaf.shape[buffer.axis]
    chosen = _buffer_for(leaf, buffer.axis, length, len(index))  # A step follows, which needs the free positions.
    torch.index_select(leaf, 0, index, out=chosen.positions.narrow(buffer.axis, 0, length))
    return _view(chosen, length, length)


def _buffer_for(leaf: Tensor, axis: int, length: int, rows: int | None = None) -> Buffer:
    """Return a buffer for `length` positions and at least as many free ones; few of them if the rows change again."""
    shape = list(leaf.shape)
    shape[0] = shape[0] if rows is None else rows
    shape[axis] = length + (max(length, LEAST_FREE) if rows is None else LEAST_FREE)
    return Buffer(leaf.new_empty(shape), axis, length)


def _view(buffer: Buffer, stop: int, size: int) -> Tensor:
    """Return the `size` positions before `stop`, as a tensor that can be extended in place."""
    view = buffer.positions.narrow(buffer.axis, stop - size, size)
    _views[view] = buffer, stop
    return view


def concatenate(states: Sequence[State]) -> State:
    """Concatenate states along the batch axis, in order; the inverse of `split`."""
    if not states or states[0] is None:
        return None
    return pytree.tree_map(lambda *leaves: torch.cat(leaves), *states)


def split(state: State, sizes: Sequence[int]) -> list[State]:
    """Split the state along the batch axis into parts of the given sizes."""
    if state is None:
        return [None for _ in sizes]
    leaves, shape = pytree.tree_flatten(state)
    pieces = zip(*(leaf.split(list(sizes)) for leaf in leaves), strict=True)
    return [pytree.tree_unflatten(list(piece), shape) for piece in pieces]


def size_in_bytes(state: State) -> int:
    """Return the size of the state in bytes: constant for a recurrent network, growing for a full cache."""
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor))


def rows(state: State) -> int:
    """Return the number of sequences B in the state."""
    return next(leaf.shape[0] for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor))
