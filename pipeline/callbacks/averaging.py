"""Weight averaging over many steps, which usually predicts better than the weights of the last step.

Training continues with its own weights. Validation, samples and users of the checkpoint get the average. With w_i the
weights after step i, and s the share of the newest:  average <- average + s (w_i - average).
"""

from abc import ABC, abstractmethod
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pipeline.distributed.checkpoint.averaged import AVERAGED
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import ConfigError


class WeightAverage(Callback, ABC):
    """An average of the weights, starting at some step; identical on every process."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}  # of each parameter, in float32 or higher precision
        self.count = 0  # steps in the average
        self.own: list[Tensor] = []  # the training weights, while the average replaces them

    @abstractmethod
    def share(self) -> float:
        """Return the share of the newest weights in the average, from 0 to 1."""

    def add(self, module: nn.Module) -> None:
        """Add the current weights to the average."""
        found = dict(module.named_parameters())
        if not self.count:
            exact = {name: torch.promote_types(each.dtype, torch.float32) for name, each in found.items()}
            self.average = {name: each.detach().to(exact[name], copy=True) for name, each in found.items()}
        else:
            weights = [found[name].detach().to(average.dtype) for name, average in self.average.items()]
            torch._foreach_lerp_(list(self.average.values()), weights, self.share())
        self.count += 1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise ConfigError under a strategy in which no process has all weights."""
        if traits(trainer).divides_model:
            name = type(trainer.strategy).__name__
            raise ConfigError(f"{name} shards the weights that {type(self).__name__} averages: train with ddp")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move a loaded average to the devices of the weights."""
        where = {name: each.device for name, each in pl_module.named_parameters()}
        self.average = {name: average.to(where[name]) for name, average in self.average.items()}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the weights by the average until the end of the validation."""
        if not self.count:
            return
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                self.own.append(parameter.clone())
                parameter.copy_(self.average[name])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the training weights."""
        self.restore_weights(pl_module)

    def restore_weights(self, module: nn.Module) -> None:
        """Restore the training weights if the average has replaced them."""
        with torch.no_grad():
            for parameter, own in zip(module.parameters(), self.own, strict=False):
                parameter.copy_(own)
        self.own = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        if self.count:
            checkpoint[AVERAGED] = self.average

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.average = checkpoint.get(AVERAGED, {})

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.__dict__.update(state_dict)


class ExponentialAverage(WeightAverage):
    """The mean of all steps at first, then an exponential moving average.

    Args:
        decay: factor per step on the share of earlier steps.

    Raises:
        ValueError: the decay is not in (0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay={decay} must be in (0, 1)")
        super().__init__()
        self.decay = decay

    def share(self) -> float:
        return max(1 - self.decay, 1 / (self.count + 1))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.add(pl_module)


class TriggeredAverage(WeightAverage):
    """The mean of all steps since the validation loss stopped improving; with SGD this is NT-ASGD.

    Merity, Keskar and Socher (2018), "Regularizing and Optimizing LSTM Language Models", algorithm 1. The average
    starts at the first validation whose loss is above the best of those more than `patience` validations before.

    Args:
        patience: validations without improvement that are tolerated; n in the paper.

    Raises:
        ValueError: the patience is below 1.
    """

    def __init__(self, patience: int = 5) -> None:
        if patience < 1:
            raise ValueError(f"patience={patience} must be at least 1")
        super().__init__()
        self.patience = patience
        self.losses: list[float] = []  # of the validations before the trigger

    def share(self) -> float:
        return 1 / (self.count + 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.count and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.add(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the average if the loss has stopped improving."""
        super().on_validation_end(trainer, pl_module)
        if self.count or trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val/loss"])
        if len(self.losses) > self.patience and loss > min(self.losses[: -self.patience]):
            self.add(pl_module)
            if trainer.is_global_zero:
                print(f"weight averaging starts at step {trainer.global_step}", flush=True)
        self.losses.append(loss)

    def state_dict(self) -> dict[str, object]:
        return {**super().state_dict(), "losses": self.losses}
