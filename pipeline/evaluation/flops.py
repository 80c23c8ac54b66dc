"""Count the FLOPs of a training step: multiplications and additions of matrix products and convolutions.

The task's training step runs on meta tensors, which have shapes but no memory, forward and backward. A linear layer of
m inputs and n outputs has 2 m n per token forward and 4 m n backward. Elementwise operations are not counted.

Legend: B sequences, T positions, D features, H hidden features, L layers times directions.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")  # functions of torch


def flops_of(build: Callable[[], LightningModule], batch: object) -> int:
    """Return the FLOPs of a training step.

    Args:
        build: returns the task before `configure_model`.
        batch: a micro-batch.
    """
    if (found := flops_of_shapes(build, batch)) is not None:
        return found
    task = build()
    task.configure_model()
    return _counted(task, batch)


def flops_of_shapes(build: Callable[[], LightningModule], batch: object) -> int | None:
    """Return the FLOPs of a training step, computed without memory; None if the step depends on values of tensors.

    Args:
        build: returns the task before `configure_model`.
        batch: a micro-batch.
    """
    shapes = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, batch)
    try:
        return _counted(build().to("meta"), shapes)
    except (RuntimeError, NotImplementedError):  # depends on values of the batch
        return None


def _counted(task: LightningModule, batch: object) -> int:
    quiet = warnings.catch_warnings(action="ignore", category=UserWarning)
    # Disable fused attention kernels, whose products are not visible to the counter.
    attention = sdpa_kernel(SDPBackend.MATH)
    with quiet, attention, FlopCounterMode(display=False) as counter, _Products():
        loss = task.training_step(batch, 0)
        assert isinstance(loss, Tensor)
        torch.autograd.backward(loss)
    return int(counter.get_total_flops())


class _Products(TorchFunctionMode):
    """Replaces fused recurrent kernels, whose products are not visible to the counter, by products of equal size."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if getattr(func, "__name__", "") in RECURRENT and isinstance(args[3], bool):  # not a packed sequence
            func = _recurrent
        return func(*args, **(kwargs or {}))


def _recurrent(
    inputs: Tensor,
    states: Tensor | tuple[Tensor, Tensor],
    weights: Sequence[Tensor],
    biases: bool,
    depth: int,
    dropout: float,
    train: bool,
    both: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """Return values of the shapes of a recurrent kernel, by its products of all positions at once."""
    directions, each = 2 if both else 1, 4 if biases else 2
    first = states if isinstance(states, Tensor) else states[0]  # (L, B, H)
    hidden = first.shape[-1]
    values = inputs if batch_first else inputs.transpose(0, 1)  # (B, T, D)
    for layer in range(depth):
        outputs = []
        for direction in range(directions):
            at = layer * directions + direction
            weight, recurrent = weights[at * each : at * each + 2]
            given = F.linear(values, weight)[..., :hidden]
            before = [F.linear(first[at], recurrent)[:, None], F.linear(given[:, 1:], recurrent)]
            outputs.append(given + torch.cat(before, 1)[..., :hidden])
        values = torch.cat(outputs, -1)
    after = tuple(first + values[:, -1, :hidden] for _ in range(1 if isinstance(states, Tensor) else 2))
    return (values if batch_first else values.transpose(0, 1), *after)
