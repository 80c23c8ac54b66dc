"""Time limit of a run: the seconds of training over all attempts, without validations and starts.

The clock of the first process decides; several processes agree on it in the vote on each step.
"""

from datetime import timedelta

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from pipeline.callbacks.step_vote import StepVote
from pipeline.callbacks.train_metrics import Monitor


class TimeLimit(Timer):
    """Stops training at the end of the step in which the limit is reached, or with several processes of the next one.

    Args:
        limit: the trainer's `max_time`: DD:HH:MM:SS, or {minutes: 10}.
        monitor: the clock of training, which checkpoints store.
        vote: the vote in which the processes agree.
    """

    def __init__(self, limit: str | timedelta | dict[str, int], monitor: Monitor, vote: StepVote) -> None:
        super().__init__(limit, verbose=False)
        self.monitor, self.vote = monitor, vote
        vote.questions["end"] = lambda trainer: trainer.is_global_zero and self._is_reached()

    def time_elapsed(self, stage: str = "train") -> float:
        """Return the seconds of training over all attempts."""
        return self.monitor.trained()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Check the clock between two optimizer steps."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            ends = self._is_reached() if trainer.world_size == 1 else bool(self.vote.take("end"))
            trainer.should_stop = trainer.should_stop or ends

    def _is_reached(self) -> bool:
        remaining = self.time_remaining()
        return remaining is not None and remaining <= 0

    def state_dict(self) -> dict[str, object]:
        return {}
