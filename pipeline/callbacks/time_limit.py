"""Training ends when it has taken so long: the seconds of all attempts together, without validations and starts."""

from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from pipeline.callbacks.train_metrics import Monitor


class TimeLimit(Timer):
    """Asks the trainer to stop at the end of the step in which the time is up; the first process's clock decides.

    Args:
        limit: the trainer's `max_time`: DD:HH:MM:SS, or {minutes: 10}.
        monitor: whose clock it is; it is in the checkpoints.
    """

    def __init__(self, limit: str | timedelta | dict[str, int], monitor: Monitor) -> None:
        super().__init__(limit, verbose=False)
        self.monitor = monitor

    def time_elapsed(self, stage: str = "train") -> float:
        """Seconds of training, over all attempts."""
        return self.monitor.trained()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock between two optimizer steps."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            super().on_train_batch_end(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {}
