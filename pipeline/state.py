"""The carried state of a network: a pytree of tensors, batch axis first, and the operations on it.

The operations work for any state: an LSTM's (h, c), a Transformer's key/value cache, an n-gram's last n-1 inputs.
`None` is the state before the first input.

Legend: B sequences.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

State = Any  # a pytree of tensors whose first axis is B, or None


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
    return map_state(Tensor.detach, state)


def select(state: State, index: Tensor) -> State:
    """Return rows `index` of the state: beam search keeps, drops and copies hypotheses with it."""
    return map_state(lambda leaf: leaf.index_select(0, index), state)


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
