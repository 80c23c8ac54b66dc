"""Histograms of the gradients, one per parameter, as the optimizer uses them.

Values are counted in BINS equal intervals between the smallest and the largest. Under a strategy that shards the
model, the histograms cover the shard of the first process only.
"""

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
    """Writes histograms of gradients to the journal.

    Args:
        every: optimizer steps between two sets.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"tracking.gradients={every} must be at least 1 step, or null for none")
        self.every = every

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise ConfigError under a strategy that hides gradients."""
        if traits(trainer).owns_gradients:
            raise ConfigError(
                f"tracking.gradients={self.every}: gradients are not accessible under ZeRO; set it to null or use FSDP"
            )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute the histograms on the first process if they are due at this step."""
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
    """Return counts and bin edges; None without any finite value.

    Args:
        gradient: a tensor of any shape.
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
