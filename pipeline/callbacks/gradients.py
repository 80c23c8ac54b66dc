"""Histograms of the gradients, one a parameter, as they are when the optimizer takes its step.

Every value is counted in one of BINS equal parts between the smallest and the largest. Under a strategy that
divides the model a process sees its share alone, and the first one tells.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor

from pipeline.distributed.strategies.traits import traits
from pipeline.errors import ConfigError
from pipeline.tracking.journal_logger import JournalLogger

BINS = 64


class Gradients(Callback):
    """Writes them to the journal.

    Args:
        every: optimizer steps from one set to the next.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"tracking.gradients={every} must be at least 1 step, or null for none")
        self.every = every

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a strategy that keeps gradients to itself."""
        if traits(trainer).owns_gradients:
            raise ConfigError("tracking.gradients: ZeRO keeps gradients to itself; leave it out, or train under FSDP")

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Count, on the first process, if a set is due at the step that is being taken."""
        step = trainer.global_step + 1
        journals = [logger for logger in trainer.loggers if isinstance(logger, JournalLogger)]
        if step % self.every or not journals:
            return
        found = {
            name: counted
            for name, parameter in pl_module.named_parameters()
            if parameter.grad is not None and (counted := histogram(parameter.grad)) is not None
        }
        for journal in journals:
            journal.log_event("gradients", {"gradients": found}, step)


def histogram(gradient: Tensor) -> dict[str, list[float]] | None:
    """Counts and the edges around them; None where nothing, or nothing finite, is to be counted.

    Args:
        gradient: of any shape.
    """
    values = gradient.to_local() if isinstance(gradient, DTensor) else gradient
    values = values.detach().float().flatten()
    values = values[torch.isfinite(values)]
    if not values.numel():
        return None
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = torch.histc(values, BINS, low, high)
    return {"counts": counts.tolist(), "edges": torch.linspace(low, high, BINS + 1).tolist()}
