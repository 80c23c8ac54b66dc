"""What a person watches: loss, gradient, learning rate, speed, memory, and how long the data kept us waiting.

Every row of the journal comes from here; sums stay on the device until a row is due.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback


class Monitor(Callback):
    """Logs a row every `trainer.log_every_n_steps` optimizer steps and after each validation.

    Args:
        attempt: which start of the run this is.
        others: what else goes into a row; asked once for each.
    """

    def __init__(self, attempt: int = 1, others: Sequence[Callable[[], dict[str, float]]] = ()) -> None:
        self.attempt, self.others = attempt, others
        self.tokens = 0
        self.seconds = 0.0  # of training, over all attempts
        self.latest: dict[str, float] = {}
        self.leave = Leave(self)
        self.opened = self.left = self.paused = math.inf  # what comes before training does not count
        self._window(self.opened)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the attempt's part of the journal where the run stands."""
        self._window(time.perf_counter())
        for logger in trainer.loggers:
            if hasattr(logger, "start_attempt"):
                logger.log_metrics(self._position(), trainer.global_step)
                logger.start_attempt(self.attempt, trainer.global_step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.waited += time.perf_counter() - self.left

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log if a row is due."""
        self.padding += getattr(batch, "padding", 0)
        self.positions += getattr(batch, "positions", 0)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self.tokens += batch.predictions
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._log(trainer, self._row(trainer, pl_module))
            self._window(time.perf_counter())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what validation found."""
        now = time.perf_counter()
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            found = {name: float(value) for name, value in trainer.callback_metrics.items()}
            row = {name: value for name, value in found.items() if name.startswith("val/")}
            self._log(trainer, row | {"val/seconds": now - self.paused})

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "seconds": self.trained()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens, self.seconds = state_dict["tokens"], state_dict["seconds"]

    def _window(self, now: float) -> None:
        self.seconds = self.trained()
        self.opened = self.left = self.paused = now
        self.waited, self.window_tokens = 0.0, self.tokens
        self.padding = self.positions = 0  # of this process

    def trained(self) -> float:
        """Seconds of training, over all attempts."""
        now = self.paused if self.paused > self.left else time.perf_counter()  # a validation does not count
        return self.seconds + max(0.0, now - self.opened)

    def _row(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, float]:
        loss = float(pl_module.seen.compute())  # a sum over all processes
        pl_module.seen.reset()
        elapsed = time.perf_counter() - self.opened
        row = {
            **{f"train/{name}": value for name, value in pl_module.measured(loss).items()},
            "train/learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/tokens_per_second": (self.tokens - self.window_tokens) / elapsed,
            "train/memory_gb": memory_gb(),
            "train/data_wait": self.waited / elapsed,
        }
        if self.positions:
            row["train/padding"] = self.padding / self.positions
        if pl_module.norm is not None:
            row["train/gradient_norm"] = float(pl_module.norm)
        for other in self.others:
            row |= other()
        return row

    def _log(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        self.latest |= row
        for logger in trainer.loggers:
            logger.log_metrics({**row, **self._position()}, trainer.global_step)

    def _position(self) -> dict[str, float]:
        return {"tokens": float(self.tokens), "seconds": self.trained()}


class Leave(Callback):
    """The last callback of a step: from here to the next batch, training waits for data."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def on_train_batch_end(self, *_: Any) -> None:
        self.monitor.left = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """A validation's time does not count as training, that of its pictures and its checkpoint neither."""
        self.monitor.left = time.perf_counter()
        self.monitor.opened += self.monitor.left - self.monitor.paused


def memory_gb() -> float:
    """Most memory that this process held so far, in 1e9 bytes: on the device where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
