"""What a step computes, counted: the multiplications and additions of its matrix products and convolutions.

The task's own training step is run on tensors that have shapes and no memory, forward and backward. A linear layer of
m inputs and n outputs is 2 m n a token, and twice that again backward; what is done number by number is not counted.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode


def flops_of(build: Callable[[], Any], batch: Any) -> int:
    """Of a training step.

    Args:
        build: makes the task as the trainer gets it: its shapes, and `configure_model` for the rest.
        batch: a micro-batch.
    """
    try:
        shapes = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, batch)
        return _counted(build().to("meta"), shapes)
    except (RuntimeError, NotImplementedError):  # it decides by values, such as where documents start: then it computes
        task = build()
        task.configure_model()
        return _counted(task, batch)


def _counted(task: Any, batch: Any) -> int:
    quiet = warnings.catch_warnings(action="ignore", category=UserWarning)
    # recurrent and attention kernels that are one piece are taken apart into products that can be seen
    products, attention = torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH)
    with quiet, products, attention, FlopCounterMode(display=False) as counter:
        task.training_step(batch, 0).backward()
    return int(counter.get_total_flops())
