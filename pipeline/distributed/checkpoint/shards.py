"""Weights and optimizer state lie in a checkpoint as pieces: each process writes its own range of each tensor.

A piece is a contiguous range of a flattened tensor. Data parallel processes divide each tensor evenly, FSDP
shards and ZeRO partitions are contiguous ranges already; so one format serves every strategy and every
number of processes, a save needs no communication, and a load reads only the ranges that it wants.
The files are safetensors: numbers and a JSON header, nothing that could be executed.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from pipeline.errors import CheckpointError

# how the names of tensors begin: weights/NAME, optimizer/NAME/KEY
WEIGHTS, OPTIMIZER = "weights/", "optimizer/"


class Piece(NamedTuple):
    """A contiguous range of a flattened tensor."""

    values: Shaped[Tensor, " n"]
    start: int
    shape: tuple[int, ...]
    """Shape of the whole tensor."""


def part_of_rank(tensor: Tensor, rank: int, world_size: int) -> Piece:
    """The part that process `rank` writes of a tensor that all processes hold whole."""
    start, stop = (tensor.numel() * r // world_size for r in (rank, rank + 1))
    return Piece(tensor.detach().reshape(-1)[start:stop], start, tuple(tensor.shape))


def write_shard(path: Path, pieces: Mapping[str, Piece]) -> None:
    """Write the pieces of one process; where each belongs stands in the file's header.

    Args:
        path: the safetensors file.
        pieces: by the tensor's name; tensors on the CPU. Empty ones are left out.
    """
    from safetensors.torch import save_file

    there = {name: piece for name, piece in pieces.items() if piece.values.numel()}
    places = {name: [piece.start, *piece.shape] for name, piece in there.items()}
    values = {name: piece.values.contiguous() for name, piece in there.items()}
    save_file(values, path, metadata={"places": json.dumps(places)})


class Pieces:
    """Reads tensors by name from the pieces that any number of processes wrote.

    Args:
        directory: holds the safetensors files.

    Raises:
        CheckpointError: a file cannot be read, or the pieces of a tensor leave a gap.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.directory = directory
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.places: dict[str, list[tuple[int, Any]]] = {}  # by name: start and file of each piece
        for path in sorted(directory.glob("*.safetensors")):
            try:
                file: Any = safe_open(path, "pt")
                places = json.loads(file.metadata()["places"])
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path} cannot be read: {error}") from error
            for name, (start, *shape) in places.items():
                self.shapes[name] = tuple(shape)
                self.places.setdefault(name, []).append((start, file))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.shapes))

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def dtype(self, name: str) -> torch.dtype:
        """The type of the tensor's elements."""
        _, file = self.places[name][0]
        found: torch.dtype = file.get_slice(name)[:0].dtype
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Shaped[Tensor, " n"]:
        """Elements start .. stop-1 of the flattened tensor; all of them by default."""
        if name not in self:
            raise CheckpointError(f"{self.directory} has no tensor {name}: it is a checkpoint of another model")
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
            raise CheckpointError(f"{self.directory} holds only parts of {name}: a file of a process is missing")
        return torch.cat([values for *_, values in found]) if found else torch.empty(0, dtype=self.dtype(name))

    def whole(self, name: str) -> Tensor:
        """The tensor."""
        return self.read(name).view(self.shapes[name])
