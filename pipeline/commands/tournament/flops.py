"""Count the FLOPs of a training step: multiplications and additions of matrix products and convolutions.

The task's training step runs on meta tensors, which have shapes but no memory, forward and backward. A linear layer of
m inputs and n outputs has 2 m n per token forward and 4 m n backward. Elementwise operations are not counted.
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from pipeline.tasks.task import Task


def flops_of(build: "Callable[[], Task]", batch: object) -> int:
    """Return the FLOPs of a training step.

    Args:
        build: returns the task before `configure_model`.
        batch: a micro-batch.
    """
    try:
        shapes = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, batch)
        return _counted(build().to("meta"), shapes)
    except (RuntimeError, NotImplementedError):  # depends on values of the batch: run with real tensors
        task = build()
        task.configure_model()
        return _counted(task, batch)


def _counted(task: "Task", batch: object) -> int:
    quiet = warnings.catch_warnings(action="ignore", category=UserWarning)
    # Disable fused recurrent and attention kernels, whose products are not visible to the counter.
    products, attention = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with quiet, products, attention, FlopCounterMode(display=False) as counter:
        loss = task.training_step(batch, 0)
        assert isinstance(loss, Tensor)
        torch.autograd.backward(loss)
    return int(counter.get_total_flops())
