"""A vote of all processes before each optimizer step, in one all-reduce: loss, gradient norm, saving and stopping.

`Guard` casts the vote. `Guard` and `Checkpoints` act on the verdict, which is the same on every process.
"""

from typing import NamedTuple

from pipeline.distributed.collectives import Agreement


class Requests(NamedTuple):
    """The requests of one process for the end of the next step."""

    save: bool
    stop: bool
    writing: bool  # an earlier checkpoint is still being written


class Verdict(NamedTuple):
    """The result of a vote.

    Args:
        loss: nats per token over all processes.
        norm: mean of the gradient norm over processes; infinite or NaN if it is on any process.
        save: at least one process requests a checkpoint.
        stop: at least one process requests to stop.
        writing: at least one process is still writing an earlier checkpoint.
    """

    loss: float = 0.0
    norm: float = 0.0
    save: bool = False
    stop: bool = False
    writing: bool = False


class StepVote:
    """The state that `Guard` and `Checkpoints` share; one per process."""

    def __init__(self) -> None:
        self.agreement = Agreement()
        self.verdict = Verdict()
        self.keeps_all = False  # steps were skipped since the last good one, so old checkpoints may be needed

    def cast(self, loss: float, norm: float, requests: Requests, world_size: int) -> Verdict:
        """Sum the values and requests of all processes; called on every process.

        Args:
            loss: loss of this process's part of the step.
            norm: gradient norm on this process.
            requests: requests of this process.
            world_size: number of processes.
        """
        loss, norm, *requested = self.agreement.total(loss, norm, *map(float, requests))
        self.verdict = Verdict(loss / world_size, norm / world_size, *map(bool, requested))
        return self.verdict
