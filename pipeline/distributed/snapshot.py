"""Snapshots of the training state in host memory, from which checkpoints are written.

A snapshot has two parts. Shards of weights and optimizer state, by name, belong to each process. Plain values (loops,
callbacks, schedule, carried state) are the same on all processes or were gathered before.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.shards import TensorShard
from pipeline.distributed.lightning_internals import plain_state
from pipeline.distributed.strategies.traits import traits


class Snapshot(NamedTuple):
    """The state of training at one step, in host memory."""

    plain: dict[str, object]
    shards: dict[str, TensorShard]


def take(trainer: pl.Trainer) -> Snapshot:
    """Copy the training state to host memory. Must be called on every process.

    Training is blocked only while this copy is made.
    """
    plain, mine = plain_state(trainer), traits(trainer).local_state(trainer)
    plain["optimizer"] = {name: value for name, value in mine._asdict().items() if name != "shards"}
    plain["aliases"] = local_state.aliases(trainer.lightning_module)
    snapshot = Snapshot(
        pytree.tree_map(lambda leaf: _to_host(leaf) if isinstance(leaf, Tensor) else copy.deepcopy(leaf), plain),
        {name: piece._replace(values=_to_host(piece.values)) for name, piece in mine.shards.items()},
    )
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return snapshot


def put_back(trainer: pl.Trainer, directory: Path) -> dict[str, Any]:
    """Restore weights and optimizer state from a checkpoint during training. Must be called on every process.

    Loops, schedule and data position are not changed.

    Returns:
        the plain values of the checkpoint.
    """
    strategy = trainer.strategy
    state = strategy.load_checkpoint(directory, weights_only=True)
    strategy.load_model_state_dict(state, strict=True)
    strategy.load_optimizer_state_dict(state)
    return state


def _to_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory; a copy from a GPU is complete after the next synchronization."""
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return here.copy_(tensor.detach(), non_blocking=True)
