"""Metrics of training: loss, gradient norm, learning rate, throughput, utilization, memory and the time of each part.

All metric rows of the journal are logged here; sums stay on the device until a row is due.
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
from torch import Tensor

from pipeline.callbacks.step_clock import StepClock
from pipeline.callbacks.utilization import Identified, Utilization
from pipeline.distributed.lightning_internals import log_interval


class Monitor(Callback):
    """Logs a row every `trainer.log_every_n_steps` optimizer steps and after each validation.

    Args:
        attempt: number of the attempt.
        others: functions that return further metrics, called once per row.
        utilization: finds kernels, FLOPs and peak on the first process; None leaves them out.
        clock: measures the parts of each step on the first process.
    """

    def __init__(
        self,
        attempt: int = 1,
        others: Sequence[Callable[[], dict[str, float]]] = (),
        utilization: Utilization | None = None,
        clock: StepClock | None = None,
    ) -> None:
        self.attempt, self.others, self.utilization = attempt, others, utilization
        self.clock = clock or StepClock()
        self.tokens = 0
        self.seconds = 0.0  # of training, over all attempts
        self.latest: dict[str, float] = {}
        self.opened = math.inf  # time before training does not count
        self.paused: float | None = None  # start of the current or last validation
        self.waited = self.waited_at_pause = 0.0  # the loader's waiting seconds outside the current window
        self._window(self.opened)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the attempt's part of the journal at the current step."""
        self._window(time.perf_counter())
        self.waited, self.window_step = data_wait(trainer), trainer.global_step
        if trainer.loggers:  # of the first process
            self.clock.start(pl_module.device)
            vars(trainer.train_dataloader)["on_wait"] = self.clock.wait
        for logger in trainer.loggers:
            if hasattr(logger, "start_attempt"):
                logger.log_metrics(self._position(), trainer.global_step)
                logger.start_attempt(self.attempt, trainer.global_step)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Exclude a validation, its pictures, its checkpoint and the wait after it from the time of training."""
        if self.paused is not None:
            self.opened += time.perf_counter() - self.paused
            self.waited += data_wait(trainer) - self.waited_at_pause
            self.paused = None
        self.clock.mark("forward")

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self.utilization is not None and trainer.is_global_zero:
            self.utilization.note_kernels(pl_module, loss)
        self.clock.mark("backward")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.clock.mark("optimizer")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log if a row is due."""
        self.clock.mark("other")
        self.padding += getattr(batch, "padding", 0)
        self.positions += getattr(batch, "positions", 0)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self.tokens += batch.predictions
        if not (every := log_interval(trainer)):
            self.clock.start(None)
        if every and trainer.global_step % every == 0:
            self._log(trainer, self._row(trainer, pl_module, batch))
            self._window(time.perf_counter())
            self.waited, self.window_step = data_wait(trainer), trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.paused, self.waited_at_pause = time.perf_counter(), data_wait(trainer)
        self.clock.mark(None)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the validation."""
        now, began = time.perf_counter(), self.paused or 0.0
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            found = {name: float(value) for name, value in trainer.callback_metrics.items()}
            row = {name: value for name, value in found.items() if name.startswith("val/")}
            self._log(trainer, row | {"val/seconds": now - began})

    def state_dict(self) -> dict[str, object]:
        return {"tokens": self.tokens, "seconds": self.trained()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.tokens, self.seconds = state_dict["tokens"], state_dict["seconds"]

    def _window(self, now: float) -> None:
        self.seconds = self.trained()
        self.opened, self.window_tokens = now, self.tokens
        self.padding = self.positions = 0  # of this process

    def trained(self) -> float:
        """Return the seconds of training over all attempts."""
        now = time.perf_counter() if self.paused is None else self.paused
        return self.seconds + max(0.0, now - self.opened)

    def _row(self, trainer: pl.Trainer, pl_module: Any, batch: Identified) -> dict[str, float]:
        self.clock.close(trainer.global_step - self.window_step)
        loss = float(pl_module.seen.compute())  # a sum over all processes
        pl_module.seen.reset()
        elapsed = time.perf_counter() - self.opened
        row = {
            **{f"train/{name}": value for name, value in pl_module.loss_metrics(loss).items()},
            "train/learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/tokens_per_second": (self.tokens - self.window_tokens) / elapsed,
            "train/memory_gb": memory_gb(),
            "train/data_wait": (data_wait(trainer) - self.waited) / elapsed,
        }
        if self.positions:
            row["train/padding"] = self.padding / self.positions
        if pl_module.norm is not None:
            row["train/gradient_norm"] = float(pl_module.norm)
        for other in self.others:
            row |= other()
        return row | self.clock.row() | self._utilization(trainer, pl_module, batch, row["train/tokens_per_second"])

    def _utilization(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Identified, rate: float
    ) -> dict[str, float]:
        """Return the utilization; the time to find it at the first row is not training."""
        if self.utilization is None or not trainer.is_global_zero:
            return {}
        began, part = time.perf_counter(), self.clock.part
        self.clock.mark(None)
        found = self.utilization.row(trainer, pl_module, batch, rate)
        self.clock.mark(part)
        self.opened += time.perf_counter() - began
        return found

    def _log(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        self.latest |= row
        for logger in trainer.loggers:
            logger.log_metrics({**row, **self._position()}, trainer.global_step)

    def _position(self) -> dict[str, float]:
        return {"tokens": float(self.tokens), "seconds": self.trained()}


def data_wait(trainer: pl.Trainer) -> float:
    """Return the seconds that training has waited for the loader since the loader was created."""
    return float(getattr(trainer.train_dataloader, "waited", 0.0))


def memory_gb() -> float:
    """Return the peak memory of this process in 1e9 bytes: on the GPU if there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
