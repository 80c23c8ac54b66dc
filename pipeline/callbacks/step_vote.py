"""Before each optimizer step the processes vote, in one sum: is the step good, who asks to save, to stop, who writes.

The guard casts the vote; it and the checkpoints act on the verdict, the same one on every process.
"""

from typing import NamedTuple

from pipeline.distributed.collectives import Agreement


class Requests(NamedTuple):
    """What a process asks for after the step that comes."""

    save: bool
    stop: bool
    writing: bool  # it still writes an earlier checkpoint


class Verdict(NamedTuple):
    """What was found of a step.

    Args:
        loss: nats per token over all processes.
        norm: of the gradient, the mean over processes; infinite or NaN where that of one of them is.
        save: a process asks to save.
        stop: a process asks to stop.
        writing: a process still writes an earlier checkpoint.
    """

    loss: float = 0.0
    norm: float = 0.0
    save: bool = False
    stop: bool = False
    writing: bool = False


class StepVote:
    """What the guard and the checkpoints of a run share; there is one on each process."""

    def __init__(self) -> None:
        self.agreement = Agreement()
        self.verdict = Verdict()
        self.keeps_all = False  # steps were refused since the last good one: older checkpoints may be needed

    def cast(self, loss: float, norm: float, requests: Requests, world_size: int) -> Verdict:
        """Add up what the processes found and ask for; called on every process.

        Args:
            loss: of this process's part of the step.
            norm: of the gradient, as this process sees it.
            requests: of this process.
            world_size: number of processes.
        """
        loss, norm, *asked = self.agreement.total(loss, norm, *map(float, requests))
        self.verdict = Verdict(loss / world_size, norm / world_size, *map(bool, asked))
        return self.verdict
