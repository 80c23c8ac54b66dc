"""What the speed of a run depends on: its kernels, FLOPs and the peak of the device, kept in the run's record.

Model FLOPs utilization is the number of FLOPs of the model per second over the peak speed of the devices.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from pipeline.callbacks.kernels import kernels_of
from pipeline.distributed.lightning_internals import datamodule
from pipeline.errors import CheckpointError
from pipeline.evaluation.flops import flops_of_shapes
from pipeline.evaluation.peak import SHEET, device_name, find_peak, mfu
from pipeline.runs.run import Run


@runtime_checkable
class Identified(Protocol):
    """A batch that names its samples."""

    ids: Tensor


class Speed(NamedTuple):
    """What the record holds under `speed`."""

    device: str
    precision: str
    peak: float
    """FLOPs per second of a device."""
    peak_source: str
    flops_per_prediction: float | None
    """Of a training step; None if they depend on values of tensors."""


class Utilization:
    """Finds the kernels at the first step of an attempt, and FLOPs and peak once per run, at its first row.

    Args:
        run: the run.
        build: builds the task, on the default device.
    """

    def __init__(self, run: Run, build: Callable[[], nn.Module]) -> None:
        self.run, self.build = run, build
        self.speed: Speed | None = None
        self.kernels: dict[str, int] | None = None

    def note_kernels(self, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Record the kernels of the first step, given its loss before the backward pass."""
        if self.kernels is None:
            self.kernels = kernels_of(loss, pl_module)
            self._record(kernels=self.kernels)

    def row(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Identified, rate: float
    ) -> dict[str, float]:
        """Return the metric for the journal; none if the FLOPs depend on values of tensors.

        Args:
            trainer: the trainer.
            pl_module: the model.
            batch: a micro-batch.
            rate: predictions per second, on all devices together.
        """
        if self.speed is None:
            if torch.autograd.profiler._is_profiler_enabled:  # which would record the count
                return {}
            self.speed = self._find(trainer, pl_module, batch)
        flops, peak = self.speed.flops_per_prediction, self.speed.peak
        return {"train/mfu": mfu(rate, flops, peak, trainer.world_size)} if flops else {}

    def _find(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Identified) -> Speed:
        recorded = self.run.record.get("speed", {})
        name, precision = device_name(pl_module.device), str(trainer.precision)
        if (recorded.get("device"), recorded.get("precision"), recorded.get("peak_source")) == (name, precision, SHEET):
            return Speed(**recorded)
        flops = recorded.get("flops_per_prediction") or self._count(trainer, pl_module, batch)
        found = Speed(name, precision, *find_peak(pl_module.device, precision), flops)
        self._record(speed=found._asdict())
        return found

    def _record(self, **found: object) -> None:
        """Keep what was found in the record of the run; a full disk must not end the training."""
        with suppress(CheckpointError):
            self.run.write(**found)

    def _count(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Identified) -> float | None:
        predictions = datamodule(trainer).samples("train").predictions(batch.ids.cpu().numpy())
        generators = [pl_module.device] if pl_module.device.type == "cuda" else []

        def shapes() -> pl.LightningModule:
            with torch.device("meta"):
                task = self.build()
            assert isinstance(task, pl.LightningModule)
            task.trainer = trainer
            return task

        with torch.random.fork_rng(generators):
            try:
                counted = flops_of_shapes(shapes, batch)
            except Exception:  # of a user's own class, which may not support meta tensors: the run lacks one metric
                counted = None
        return counted / predictions if counted and predictions else None
