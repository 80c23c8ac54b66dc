"""The scan as one Triton kernel, which reads and writes each value once.

A program computes a block of features of one sequence. It scans a block of positions at once, and carries the last
state to the next block.

Legend: B sequences, T positions, H features.
"""

import torch
from torch import Tensor

try:
    import triton
    from triton import language as tl
except ImportError:  # Triton comes with PyTorch for CUDA alone.
    triton = None

POSITIONS, FEATURES = 64, 32  # of a block; 32 features are 128 bytes, one transaction of memory

if triton is not None:

    @triton.jit
    def _two_steps(decay, update, next_decay, next_update):
        """Combine two steps to one."""
        return next_decay * decay, next_decay * update + next_update

    @triton.jit
    def _blocks(decays, updates, initials, states, length, features, POSITIONS: tl.constexpr, FEATURES: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
        step = tl.arange(0, POSITIONS)
        exists = feature < features
        carried = tl.load(initials + row * features + feature, mask=exists, other=0.0)
        for begin in range(0, length, POSITIONS):
            position = begin + step
            place = (row * length + position[:, None]) * features + feature[None, :]
            inside = (position < length)[:, None] & exists[None, :]
            decay = tl.load(decays + place, mask=inside, other=1.0)
            update = tl.load(updates + place, mask=inside, other=0.0)
            decay, update = tl.associative_scan((decay, update), 0, _two_steps)
            state = decay * carried[None, :] + update
            tl.store(states + place, state, mask=inside)
            carried = tl.sum(tl.where((step == POSITIONS - 1)[:, None], state, 0.0), 0)


def by_kernel(decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
    """Return the recurrence, computed on the device of the update."""
    decay, update, initial = decay.contiguous(), update.contiguous(), initial.contiguous()
    states = torch.empty_like(update)
    rows, length, features = update.shape
    grid = (rows, -(-features // FEATURES))
    with torch.cuda.device(update.device):
        _blocks[grid](decay, update, initial, states, length, features, POSITIONS, FEATURES)
    return states
