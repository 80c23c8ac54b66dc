"""Progress as plain lines, for logs and terminals that cannot redraw."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from pipeline.callbacks.train_metrics import Monitor
from pipeline.distributed.lightning_internals import log_interval


class Lines(Callback):
    """Prints the monitor's newest row, at most once every `seconds`, and each validation.

    Args:
        monitor: source of the rows.
        seconds: minimum time between two lines.
    """

    def __init__(self, monitor: Monitor, seconds: float = 5.0) -> None:
        self.monitor, self.seconds = monitor, seconds
        self.printed = -seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int
    ) -> None:
        row, now = self.monitor.latest, time.monotonic()
        if not trainer.is_global_zero or "train/loss" not in row or now - self.printed < self.seconds:
            return
        if trainer.global_step % log_interval(trainer):
            return  # the row was already available at an earlier step
        self.printed = now
        perplexity = f" perplexity {row['train/perplexity']:.2f}," if "train/perplexity" in row else ""
        print(
            f"epoch {trainer.current_epoch} step {trainer.global_step}: loss {row['train/loss']:.4f},"
            f"{perplexity} {pl_module.data.unit.rate(row['train/tokens_per_second'])}",
            flush=True,
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            print(validation_line(trainer, pl_module), flush=True)


def validation_line(trainer: pl.Trainer, pl_module: Any) -> str:
    """Return the metrics of the last validation as a line, with the number of scored texts if they are a sample."""
    found = [(name, float(value)) for name, value in trainer.callback_metrics.items() if "val/" in name]
    listed = ", ".join(f"{name[4:].replace('_', ' ')} {value:.4f}" for name, value in found)
    scored = f" ({pl_module.scored})" if pl_module.scored else ""
    return f"validation at step {trainer.global_step}: {listed}{scored}"
