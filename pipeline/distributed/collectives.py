"""Between two steps the processes agree: each says something, and all hear the largest, the sum, or everyone.

The agreement has a group of its own, over gloo on the CPU, so that it never waits for a device.
"""

from datetime import timedelta
from typing import Any

import torch


class Agreement:
    """The processes of a run, made once on each of them."""

    def __init__(self) -> None:
        self.group: Any = None

    def connect(self, patience: timedelta | None = None) -> None:
        """Make the group, where there is more than one process; called on every process.

        Args:
            patience: how long to wait for the others before an error; torch's default when None.
        """
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.group is None and several and torch.distributed.get_world_size() > 1:
            self.group = torch.distributed.new_group(backend="gloo", timeout=patience)

    def largest(self, *numbers: int) -> list[int]:
        """The largest of what the processes say, number by number."""
        if self.group is None:
            return list(numbers)
        said = torch.tensor(numbers, dtype=torch.int64)
        torch.distributed.all_reduce(said, op=torch.distributed.ReduceOp.MAX, group=self.group)
        return said.tolist()

    def total(self, *numbers: float) -> list[float]:
        """The sum of what the processes say, number by number; not finite where one of them is not."""
        if self.group is None:
            return list(numbers)
        said = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(said, group=self.group)
        return said.tolist()

    def everyone(self, mine: Any) -> list[Any]:
        """What each process says, by rank: any object that can be pickled."""
        if self.group is None:
            return [mine]
        said: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(said, mine, group=self.group)
        return said
