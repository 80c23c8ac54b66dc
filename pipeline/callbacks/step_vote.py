"""A vote of all processes on each optimizer step, in one sum on the device: loss, gradient norm, and requests.

The device decides whether the step is taken. The host reads the vote one step later, so it never waits for the step
that the device computes. A single process answers its own requests at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from pipeline.distributed.collectives import Agreement

Question = Callable[[pl.Trainer], bool]


class Measured(NamedTuple):
    """The values of a step, over all processes.

    Args:
        loss: nats per token.
        norm: mean of the gradient norm over processes; infinite or NaN if it is on any process.
        answers: number of processes that request each of the questions, in their order.
    """

    loss: float
    norm: float
    answers: Sequence[float]


class Ballot:
    """The vote on one step, on its way from the device to the host.

    Args:
        step: the step, counted from 1.
        values: the loss, the norm and the answers, on the device.
        ids: the samples that this process read in the step.
    """

    def __init__(self, step: int, values: Tensor, ids: Sequence[Tensor]) -> None:
        self.step, self.values, self.ids = step, values, ids
        self.reason: str | None = None  # why the host has decided to skip the step, or empty; None before
        self.arrived: torch.cuda.Event | None = None
        if values.is_cuda:
            self.values = torch.empty_like(values, device="cpu", pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.arrived = torch.cuda.current_stream(values.device).record_event()

    def read(self) -> Measured:
        """Return the values; wait if the device has not computed them yet."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm, *answers = self.values.tolist()
        return Measured(loss, norm, answers)

    def samples(self) -> list[int]:
        """Return the ids of the samples that this process read in the step."""
        return [sample for part in self.ids for sample in part.tolist()]


class StepVote:
    """The votes that are not read yet, and what the processes request; one per process."""

    def __init__(self) -> None:
        self.agreement = Agreement()
        self.questions: dict[str, Question] = {}
        self.pending: deque[Ballot] = deque()
        self.requested: dict[str, int] = {}  # by question, how many processes request it, until it is taken
        self.keeps_all = False  # steps were skipped since the last good one, so old checkpoints may be needed

    def cast(self, trainer: pl.Trainer, loss: Tensor, norm: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """Sum the values and requests of all processes; called on every process.

        Args:
            trainer: the trainer, before it counts the step.
            loss: loss of this process's part of the step, a scalar.
            norm: gradient norm on this process, a scalar.
            ids: the samples that this process read in the step.

        Returns:
            the mean loss and the mean norm on the device.
        """
        values = torch.stack([loss, norm]).double()
        if trainer.world_size > 1:
            answers = torch.tensor([question(trainer) for question in self.questions.values()], dtype=values.dtype)
            values = self.agreement.total(torch.cat([values, answers.to(values.device, non_blocking=True)]))
            values[:2] /= trainer.world_size
        self.pending.append(Ballot(trainer.global_step + 1, values, ids))
        return values[:2]

    def answer(self, trainer: pl.Trainer) -> None:
        """At the end of a step, store the requests of a single process, which are known without a vote."""
        if trainer.world_size == 1:
            self._store([question(trainer) for question in self.questions.values()])

    def count(self) -> tuple[Ballot, Measured]:
        """Read the oldest vote, store its requests, and return it."""
        measured = (ballot := self.pending.popleft()).read()
        if measured.answers:
            self._store(measured.answers)
        return ballot, measured

    def take(self, name: str) -> int:
        """Return how many processes have requested something since the last call."""
        return self.requested.pop(name, 0)

    def _store(self, answers: Sequence[float]) -> None:
        for name, processes in zip(self.questions, answers, strict=True):
            if processes:
                self.requested[name] = max(self.requested.get(name, 0), int(processes))
