"""Time limit of a run: the seconds of training over all attempts, without validations and starts."""

from datetime import timedelta

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from pipeline.callbacks.train_metrics import Monitor


class TimeLimit(Timer):
    """Stops training at the end of the step in which the limit is reached; the clock of the first process decides.

    Args:
        limit: the trainer's `max_time`: DD:HH:MM:SS, or {minutes: 10}.
        monitor: the clock of training, which checkpoints store.
    """

    def __init__(self, limit: str | timedelta | dict[str, int], monitor: Monitor) -> None:
        super().__init__(limit, verbose=False)
        self.monitor = monitor

    def time_elapsed(self, stage: str = "train") -> float:
        """Return the seconds of training over all attempts."""
        return self.monitor.trained()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Check the clock between two optimizer steps."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer)

    def state_dict(self) -> dict[str, object]:
        return {}
