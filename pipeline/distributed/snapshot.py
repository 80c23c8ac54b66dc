"""A snapshot is what must be kept of a training at a step, copied to host memory: the rest is writing it down.

It has two parts: pieces of weights and optimizer state, by name, each process its own; and plain values
(loops, callbacks, schedule, carried state), which are the same on all processes or gathered beforehand.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipeline.distributed.checkpoint import local_state
from pipeline.distributed.checkpoint.shards import Piece
from pipeline.distributed.lightning_internals import plain_state
from pipeline.distributed.strategies.traits import traits


class Snapshot(NamedTuple):
    """A training at a step, in host memory."""

    plain: dict[str, Any]
    pieces: dict[str, Piece]


def take(trainer: pl.Trainer) -> Snapshot:
    """Copy the state of the training to host memory; called on every process.

    The training stands still for as long as this takes, and no longer.
    """
    plain, mine = plain_state(trainer), traits(trainer).local_state(trainer)
    plain["optimizer"] = {name: value for name, value in mine._asdict().items() if name != "pieces"}
    plain["aliases"] = local_state.aliases(trainer.lightning_module)
    snapshot = Snapshot(
        pytree.tree_map(lambda leaf: _to_host(leaf) if isinstance(leaf, Tensor) else copy.deepcopy(leaf), plain),
        {name: piece._replace(values=_to_host(piece.values)) for name, piece in mine.pieces.items()},
    )
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return snapshot


def put_back(trainer: pl.Trainer, directory: Path) -> dict[str, Any]:
    """Take weights and optimizer state from a checkpoint, in the middle of a training; called on every process.

    Loops, schedule and data stay where they are. Returns what else the checkpoint holds.
    """
    strategy = trainer.strategy
    state = strategy.load_checkpoint(directory, weights_only=True)
    strategy.load_model_state_dict(state, strict=True)
    strategy.load_optimizer_state_dict(state)
    return state


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory; from a GPU it has arrived after the next synchronisation."""
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return here.copy_(tensor.detach(), non_blocking=True)
