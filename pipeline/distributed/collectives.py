"""Collective operations on small values: a sum on the device, and a maximum and a gather on the host.

Those on the host use a process group of their own, over gloo on the CPU, so they never wait for a device.
"""

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Agreement:
    """The process group of the collectives; each process creates one instance.

    Attributes:
        timed: a context in which the collectives run, to measure their time.
    """

    def __init__(self) -> None:
        self.group: torch.distributed.ProcessGroup | None = None
        self.timed: AbstractContextManager[object] = nullcontext()

    def connect(self, patience: timedelta | None = None) -> None:
        """Create the group if there is more than one process. Must be called on every process.

        Args:
            patience: timeout of a collective (default: that of torch).
        """
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.group is None and several and torch.distributed.get_world_size() > 1:
            self.group = torch.distributed.new_group(backend="gloo", timeout=patience)

    def largest(self, *numbers: int) -> list[int]:
        """Return the elementwise maximum over all processes."""
        if self.group is None:
            return list(numbers)
        reduced = torch.tensor(numbers, dtype=torch.int64)
        with self.timed:
            torch.distributed.all_reduce(reduced, op=torch.distributed.ReduceOp.MAX, group=self.group)
        return reduced.tolist()

    def total(self, values: Tensor) -> Tensor:
        """Sum the values over all processes, in place, on the device and in the process group of training.

        The host does not wait. A sum is not finite where the value of one process is not.
        """
        if self.group is not None:
            with self.timed:
                torch.distributed.all_reduce(values)
        return values

    def gather(self, local: T) -> list[T]:
        """Return the value of each process, by rank. The values must be picklable."""
        if self.group is None:
            return [local]
        gathered = [local] * torch.distributed.get_world_size()
        with self.timed:
            torch.distributed.all_gather_object(gathered, local, group=self.group)
        return gathered
