"""Optimizer steps that the device takes or skips, without a wait of the host for the decision.

A skipped step leaves weights and optimizer state bitwise as they were. Muon and the fused kernels of Adam skip the
update themselves. For other optimizers the gate hides the gradients where the decision is free to read, on a CPU. On
another device it keeps a copy of weights and state until the step is done.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Adam, Optimizer
from torch.utils import _pytree as pytree

from pipeline.optim.muon import Muon, is_free


def is_on_device(optimizer: Optimizer, scaled: bool) -> bool:
    """Return whether the device can skip a step of this optimizer.

    Otherwise a part of its state is on the host, such as the step number of an Adam that is not fused on a GPU.

    Args:
        optimizer: the optimizer.
        scaled: whether the loss is scaled for float16; then only fused kernels can skip.
    """
    if skips_itself(optimizer, scaled):
        return True
    states = [(parameter, value) for parameter, state in optimizer.state.items() for value in state.values()]
    return not scaled and all(
        value is None or (isinstance(value, Tensor) and value.device == parameter.device) for parameter, value in states
    )


class Gate:
    """Makes the device skip the next step of an optimizer if `skip` is True.

    Args:
        optimizer: the optimizer, before it changes weights and state.
        skip: a scalar of bool on the device.
        scaled: whether the loss is scaled for float16.
    """

    def __init__(self, optimizer: Optimizer, skip: Tensor, scaled: bool) -> None:
        self.optimizer, self.skip = optimizer, skip
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.names: dict[Any, set[str]] = {}  # of the state before the step, by parameter
        self.hidden: list[tuple[Tensor, Tensor | None]] = []  # parameters and their gradients
        if not skips_itself(optimizer, scaled) and is_free(skip):
            self.hidden = [(each, each.grad) for each in _parameters(optimizer)] if skip else []
            for parameter, _ in self.hidden:
                parameter.grad = None  # no optimizer touches a parameter without a gradient
        elif not skips_itself(optimizer, scaled):
            self.copies = [(each, each.clone()) for each in map(_local, _changed_by(optimizer))]
            self.names = {parameter: set(optimizer.state.get(parameter, ())) for parameter in _parameters(optimizer)}
        elif scaled:  # the scaler skips steps with an infinite gradient
            infinite = torch.where(skip, math.inf, 0.0)
            for parameter in _parameters(optimizer):
                assert parameter.grad is not None
                parameter.grad.add_(infinite)
        else:
            vars(optimizer)["found_inf"] = skip.float()  # as torch's GradScaler sets it

    def close(self) -> None:
        """Undo the step if it was to be skipped; called after it."""
        vars(self.optimizer).pop("found_inf", None)
        for tensor, copy in self.copies:
            tensor.copy_(torch.where(self.skip, copy, tensor))
        states = self.optimizer.state
        new = [(states[each], name) for each, before in self.names.items() for name in set(states[each]) - before]
        if new and self.skip.item():  # the step created the state, as the first step does: the host has to wait
            for state, name in new:
                del state[name]
        for parameter, gradient in self.hidden:
            parameter.grad = gradient
        self.copies, self.names, self.hidden = [], {}, []


def kept(skip: Tensor, before: object, after: object) -> Any:
    """Return a pytree of tensors as it was before a step that is skipped, or else as it is after it.

    Args:
        skip: a scalar of bool on the device.
        before: the tensors before the step; None for zeros, which every state begins with.
        after: the tensors after the step, in the same structure.
    """
    if before is None:
        return pytree.tree_map_only(Tensor, lambda new: torch.where(skip, torch.zeros_like(new), new), after)
    return pytree.tree_map(
        lambda old, new: torch.where(skip, old.to(new.device), new) if isinstance(new, Tensor) else new,
        before,
        after,
    )


def skips_itself(optimizer: Optimizer, scaled: bool) -> bool:
    """Return whether the optimizer skips its update where `found_inf` is 1.

    The kernel of SGD does too, but its first step leaves the momentum without a value. Only kernels of Adam can divide
    by the scale of a scaled loss.
    """
    if isinstance(optimizer, Muon):
        return not scaled
    return isinstance(optimizer, Adam) and all(group.get("fused") for group in optimizer.param_groups)


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    """Yield the parameters that the next step changes."""
    return (each for group in optimizer.param_groups for each in group["params"] if each.grad is not None)


def _changed_by(optimizer: Optimizer) -> Iterator[Tensor]:
    """Yield the tensors that the next step changes."""
    for parameter in _parameters(optimizer):
        yield parameter
        yield from (value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor))


def _local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
