"""The local shards of weights and optimizer state on one process: collected for a checkpoint, and restored from one.

They are stored under the names of parameters, not their positions, so they do not depend on the strategy.
"""

from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.optim import Optimizer

from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, ShardReader, TensorShard, Weights, part_of_rank


class LocalState(NamedTuple):
    """Weights and optimizer state of one process."""

    shards: dict[str, TensorShard]
    """weights/NAME, and optimizer/NAME/KEY for each tensor of a parameter's optimizer state."""
    values: dict[str, dict[str, object]]
    """Entries of the optimizer state that are not tensors, by the parameter's name."""
    groups: list[dict[str, Any]]
    """The optimizer's parameter groups, with parameter names in place of parameters."""
    loss_scale: dict[str, float] = {}  # noqa: RUF012  # never changed
    """The state of a loss scale that the strategy keeps itself."""


class OptimizerRecord(TypedDict):
    """The part of `LocalState` that a checkpoint stores as plain values."""

    values: dict[str, dict[str, object]]
    groups: list[dict[str, Any]]
    loss_scale: dict[str, float]


def collect(module: nn.Module, optimizer: Optimizer | None, rank: int, world_size: int) -> LocalState:
    """Return the local state of a module whose parameters are whole tensors or DTensors."""
    shards = {WEIGHTS + name: local_shard(tensor, rank, world_size) for name, tensor in tensors(module).items()}
    values: dict[str, dict[str, object]] = {}
    if optimizer is None:
        return LocalState(shards, values, [])
    for parameter, state in optimizer.state.items():
        name = names(module)[id(parameter)]
        for key, value in state.items():
            if isinstance(value, Tensor):
                shards[f"{OPTIMIZER}{name}/{key}"] = local_shard(value, rank, world_size)
            else:
                values.setdefault(name, {})[key] = value
    return LocalState(shards, values, groups_of(module, optimizer.param_groups))


def groups_of(module: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return parameter groups with parameter names in place of parameters."""
    named = names(module)
    return [{**group, "params": [named[id(parameter)] for parameter in group["params"]]} for group in groups]


def local_shard(tensor: Tensor, rank: int, world_size: int) -> TensorShard:
    """Return the part of a tensor that this process writes: its shard of a DTensor, else an even share."""
    if not isinstance(tensor, DTensor):
        return part_of_rank(tensor, rank, world_size)
    local, start, _ = _local_range(tensor)
    return TensorShard(local.detach().reshape(-1), start, tuple(tensor.shape))


def names(module: nn.Module) -> dict[int, str]:
    """Return the name of each parameter, by its identity; the first name of a shared one."""
    return {id(parameter): name for name, parameter in module.named_parameters()}


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, shared ones once."""
    state = module.state_dict(keep_vars=True)
    shared = aliases(module)
    return {name: tensor for name, tensor in state.items() if name not in shared}


def aliases(module: nn.Module) -> dict[str, str]:
    """Return the first name of each shared parameter, by its other names."""
    first = names(module)
    named = module.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in named if first[id(parameter)] != name}


@torch.no_grad()
def restore_weights(module: nn.Module, weights: Weights) -> None:
    """Load the module's tensors, whole or DTensors.

    Raises:
        CheckpointError: a checkpoint lacks a tensor, or has it in another shape.
    """
    for name, tensor in tensors(module).items():
        fill_tensor(tensor, weights, WEIGHTS + name)


@torch.no_grad()
def restore_optimizer(module: nn.Module, optimizer: Optimizer, shards: ShardReader, kept: OptimizerRecord) -> None:
    """Load the state of an optimizer over whole tensors or DTensors from a checkpoint."""
    named = names(module)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, object]] = {}
    for number, parameter in enumerate(parameters):
        name = named[id(parameter)]
        state[number] = dict(kept["values"].get(name, {}))
        for key, full in keys_of(shards, name):
            state[number][key] = _like(parameter, shards, full)
    numbers = {named[id(parameter)]: number for number, parameter in enumerate(parameters)}
    numbered = [{**group, "params": [numbers[name] for name in group["params"]]} for group in kept["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": numbered})


def keys_of(shards: ShardReader, name: str) -> list[tuple[str, str]]:
    """Return key and full name of each tensor of a parameter's optimizer state."""
    prefix = f"{OPTIMIZER}{name}/"
    return [(full.removeprefix(prefix), full) for full in shards if full.startswith(prefix)]


def _like(parameter: Tensor, shards: ShardReader, name: str) -> Tensor:
    """Return a tensor of the optimizer state, sharded as its parameter if it has the parameter's shape."""
    if shards.shapes[name] != tuple(parameter.shape):
        return shards.whole(name)
    found = torch.empty_like(parameter, dtype=shards.dtype(name))
    fill_tensor(found, shards, name)
    return found


def fill_tensor(tensor: Tensor, weights: Weights, name: str) -> None:
    """Copy values into a tensor, or those of its local range into the shard of a DTensor."""
    local, start, _ = _local_range(tensor)
    weights.fill(name, tensor.shape, start, local.detach().view(-1))


def _local_range(tensor: Tensor) -> tuple[Tensor, int, int]:
    """Return the local part of a tensor, and its range in the flattened whole."""
    if not isinstance(tensor, DTensor):
        return tensor, 0, tensor.numel()
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    local = tensor.to_local()
    if any(offsets[1:]) or (local.numel() and local.shape[1:] != tensor.shape[1:]):
        raise NotImplementedError("only shards along the first axis are supported")
    start = offsets[0] * (tensor.numel() // max(1, tensor.shape[0])) if offsets else 0
    return local, start, start + local.numel()
