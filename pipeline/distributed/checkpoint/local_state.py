"""What a process holds of weights and optimizer state, by the parameter's name, and how it takes them back.

Names, not positions: so the state of an optimizer means the same whatever strategy divided the parameters.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.optim import Optimizer

from pipeline.distributed.checkpoint.shards import OPTIMIZER, WEIGHTS, Piece, Pieces, part_of_rank
from pipeline.errors import CheckpointError


class Held(NamedTuple):
    """The part of one process."""

    pieces: dict[str, Piece]
    """weights/NAME, and optimizer/NAME/KEY for each tensor of a parameter's optimizer state."""
    values: dict[str, dict[str, Any]]
    """What of the optimizer's state is no tensor, by the parameter's name."""
    groups: list[dict[str, Any]]
    """The optimizer's parameter groups, with names for parameters."""
    loss_scale: dict[str, Any] = {}  # noqa: RUF012  # never changed
    """The state of a loss scale that the strategy keeps itself."""


def hold(module: nn.Module, optimizer: Optimizer | None, rank: int, world_size: int) -> Held:
    """What this process holds of a module whose parameters are whole tensors or DTensors."""
    pieces = {WEIGHTS + name: piece_of(tensor, rank, world_size) for name, tensor in tensors(module).items()}
    values: dict[str, dict[str, Any]] = {}
    if optimizer is None:
        return Held(pieces, values, [])
    for parameter, state in optimizer.state.items():
        name = names(module)[id(parameter)]
        for key, value in state.items():
            if isinstance(value, Tensor):
                pieces[f"{OPTIMIZER}{name}/{key}"] = piece_of(value, rank, world_size)
            else:
                values.setdefault(name, {})[key] = value
    return Held(pieces, values, groups_of(module, optimizer.param_groups))


def groups_of(module: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parameter groups with the names of the parameters instead of them."""
    named = names(module)
    return [{**group, "params": [named[id(parameter)] for parameter in group["params"]]} for group in groups]


def piece_of(tensor: Tensor, rank: int, world_size: int) -> Piece:
    """What this process writes of a tensor: its shard of a DTensor, else an even share."""
    if not isinstance(tensor, DTensor):
        return part_of_rank(tensor, rank, world_size)
    local, start, _ = _place(tensor)
    return Piece(local.detach().reshape(-1), start, tuple(tensor.shape))


def names(module: nn.Module) -> dict[int, str]:
    """The name of each parameter, by its identity; of a shared one, the first name."""
    return {id(parameter): name for name, parameter in module.named_parameters()}


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, shared ones once."""
    state = module.state_dict(keep_vars=True)
    shared = aliases(module)
    return {name: tensor for name, tensor in state.items() if name not in shared}


def aliases(module: nn.Module) -> dict[str, str]:
    """The other names of shared parameters, and the first name of each."""
    first = names(module)
    named = module.named_parameters(remove_duplicate=False)
    return {name: first[id(parameter)] for name, parameter in named if first[id(parameter)] != name}


@torch.no_grad()
def take_weights(module: nn.Module, pieces: Pieces) -> None:
    """Fill the module's tensors, whole or DTensors, from a checkpoint.

    Raises:
        CheckpointError: a tensor is missing, or has another shape.
    """
    for name, tensor in tensors(module).items():
        fill_tensor(tensor, pieces, WEIGHTS + name)


@torch.no_grad()
def take_optimizer(module: nn.Module, optimizer: Optimizer, pieces: Pieces, kept: Mapping[str, Any]) -> None:
    """Give an optimizer over whole tensors or DTensors the state that a checkpoint holds."""
    named = names(module)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for number, parameter in enumerate(parameters):
        name = named[id(parameter)]
        state[number] = dict(kept["values"].get(name, {}))
        for key, full in keys_of(pieces, name):
            state[number][key] = _like(parameter, pieces, full)
    numbers = {named[id(parameter)]: number for number, parameter in enumerate(parameters)}
    numbered = [{**group, "params": [numbers[name] for name in group["params"]]} for group in kept["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": numbered})


def keys_of(pieces: Pieces, name: str) -> list[tuple[str, str]]:
    """Key and full name of each tensor of a parameter's optimizer state."""
    prefix = f"{OPTIMIZER}{name}/"
    return [(full.removeprefix(prefix), full) for full in pieces if full.startswith(prefix)]


def _like(parameter: Tensor, pieces: Pieces, name: str) -> Tensor:
    """A tensor of the optimizer's state, divided as its parameter is if it has the parameter's shape."""
    if pieces.shapes[name] != tuple(parameter.shape):
        return pieces.whole(name)
    found = torch.empty_like(parameter, dtype=pieces.dtype(name))
    fill_tensor(found, pieces, name)
    return found


def fill_tensor(tensor: Tensor, pieces: Pieces, name: str) -> None:
    """Copy what a checkpoint holds under a name into a tensor, or into the part of it that lies here."""
    require_tensor(pieces, name, tensor.shape)
    local, start, stop = _place(tensor)
    local.detach().view(-1).copy_(pieces.read(name, start, stop))


def require_tensor(pieces: Pieces, name: str, shape: Sequence[int]) -> None:
    """Raise CheckpointError unless the checkpoint holds a tensor of that name and shape."""
    if name not in pieces or pieces.shapes[name] != tuple(shape):
        there = pieces.shapes.get(name, "missing")
        raise CheckpointError(f"{pieces.directory}: {name} is {there}, the model's is {tuple(shape)}")


def _place(tensor: Tensor) -> tuple[Tensor, int, int]:
    """The part of a tensor that lies here, and its range of the flattened whole."""
    if not isinstance(tensor, DTensor):
        return tensor, 0, tensor.numel()
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    local = tensor.to_local()
    if any(offsets[1:]) or (local.numel() and local.shape[1:] != tensor.shape[1:]):
        raise NotImplementedError("only shards along the first axis are contiguous ranges")
    start = offsets[0] * (tensor.numel() // max(1, tensor.shape[0])) if offsets else 0
    return local, start, start + local.numel()
