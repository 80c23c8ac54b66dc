"""Weights and optimizer state in a checkpoint: each process writes its own shard of each tensor.

A shard is a contiguous range of a flattened tensor. Data parallel processes divide each tensor evenly; FSDP shards
and ZeRO partitions are contiguous ranges already. So one format serves every strategy and every number of processes,
saving needs no communication, and loading reads only the required ranges.
The files are safetensors: numbers and a JSON header, nothing that could be executed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor

from pipeline.errors import CheckpointError

# prefixes of the names of tensors: weights/NAME, optimizer/NAME/KEY
WEIGHTS, OPTIMIZER = "weights/", "optimizer/"


class TensorShard(NamedTuple):
    """A contiguous range of a flattened tensor."""

    values: Shaped[Tensor, " n"]
    start: int
    shape: tuple[int, ...]
    """Shape of the whole tensor."""


def part_of_rank(tensor: Tensor, rank: int, world_size: int) -> TensorShard:
    """Return the part that process `rank` writes of a tensor that is whole on all processes."""
    start, stop = (tensor.numel() * r // world_size for r in (rank, rank + 1))
    return TensorShard(tensor.detach().reshape(-1)[start:stop], start, tuple(tensor.shape))


def write_shard(path: Path, shards: Mapping[str, TensorShard]) -> None:
    """Write the shards of one process to a file, with the position of each in the file's header.

    Args:
        path: the safetensors file.
        shards: by the tensor's name, on the CPU. Empty ones are omitted.
    """
    from safetensors.torch import save_file

    filled = {name: shard for name, shard in shards.items() if shard.values.numel()}
    places = {name: [shard.start, *shard.shape] for name, shard in filled.items()}
    values = {name: shard.values.contiguous() for name, shard in filled.items()}
    save_file(values, path, metadata={"places": json.dumps(places)})


def open_safetensors(path: Path) -> Any:
    """Return an open file of safetensors.

    Raises:
        CheckpointError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Use another file.") from error


@runtime_checkable
class Weights(Protocol):
    """Values for the tensors of a model."""

    def fill(self, name: str, shape: Sequence[int], start: int, out: Tensor) -> None:
        """Overwrite a range of a flattened tensor, all of it or some elements.

        Args:
            name: name of the tensor, with the prefix `weights/`.
            shape: shape of the whole tensor.
            start: position of the range in the flattened tensor.
            out: the range.
        """


class ShardReader:
    """A reader of tensors, by name, from the shards that any number of processes wrote.

    Args:
        directory: directory of the safetensors files.

    Raises:
        CheckpointError: a file cannot be read, or the shards of a tensor leave a gap.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.places: dict[str, list[tuple[int, Any]]] = {}  # by name: start and file of each shard
        for path in sorted(directory.glob("*.safetensors")):
            try:
                file = open_safetensors(path)
                places = json.loads(file.metadata()["places"])
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}. Use another checkpoint.") from error
            for name, (start, *shape) in places.items():
                self.shapes[name] = tuple(shape)
                self.places.setdefault(name, []).append((start, file))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.shapes))

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of the tensor's elements."""
        _, file = self.places[name][0]
        found: torch.dtype = file.get_slice(name)[:0].dtype
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Shaped[Tensor, " n"]:
        """Return elements start .. stop-1 of the flattened tensor (default: all of them)."""
        if name not in self:
            raise CheckpointError(
                f"{self.directory} has no tensor {name}: it is a checkpoint of another model. Check the config."
            )
        stop = torch.Size(self.shapes[name]).numel() if stop is None else stop
        found = []
        for begin, file in sorted(self.places[name], key=lambda place: place[0]):
            values = file.get_slice(name)
            end = begin + values.get_shape()[0]
            low, high = max(begin, start), min(end, stop)
            if low < high:
                found.append((low, high, values[low - begin : high - begin]))
        edges = [(start, start), *((begin, end) for begin, end, _ in found), (stop, stop)]
        if any(one[1] != two[0] for one, two in pairwise(edges)):
            raise CheckpointError(
                f"{self.directory} has only parts of {name}: a file of a process is missing. Use another checkpoint."
            )
        return torch.cat([values for *_, values in found]) if found else torch.empty(0, dtype=self.dtype(name))

    def fill(self, name: str, shape: Sequence[int], start: int, out: Tensor) -> None:
        """Copy a range of a flattened tensor, from `start` on, into `out`.

        Raises:
            CheckpointError: the checkpoint has no tensor of that name and shape.
        """
        if name not in self or self.shapes[name] != tuple(shape):
            found = self.shapes.get(name, "no such tensor")
            raise CheckpointError(f"{self.directory}: {name}: expected shape {tuple(shape)} of the model, got {found}")
        out.copy_(self.read(name, start, start + out.numel()))

    def whole(self, name: str) -> Tensor:
        """Return the whole tensor."""
        return self.read(name).view(self.shapes[name])
