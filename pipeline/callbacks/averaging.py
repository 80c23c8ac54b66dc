"""The average of the weights of many steps predicts better than the weights of the last one.

Training goes on with its own weights; validation, samples and whoever loads the checkpoint take the average. With
w_i the weights after step i, and s the share of the newest:  average <- average + s (w_i - average).
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
    """An average of the weights, from some step on; the same on every process, as the weights are."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}  # of each parameter, in float32 or finer
        self.count = 0  # steps in the average
        self.own: list[Tensor] = []  # the weights of training, while the average stands in for them

    @abstractmethod
    def share(self) -> float:
        """What the weights of one more step count for in the average, from 0 to 1."""

    def add(self, module: nn.Module) -> None:
        """Take the present weights into the average."""
        found = dict(module.named_parameters())
        if not self.count:
            exact = {name: torch.promote_types(each.dtype, torch.float32) for name, each in found.items()}
            self.average = {name: each.detach().to(exact[name], copy=True) for name, each in found.items()}
        else:
            weights = [found[name].detach().to(average.dtype) for name, average in self.average.items()]
            torch._foreach_lerp_(list(self.average.values()), weights, self.share())
        self.count += 1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise ConfigError under a strategy in which no process has the weights."""
        if traits(trainer).divides_model:
            name = type(trainer.strategy).__name__
            raise ConfigError(f"{name} divides the weights that {type(self).__name__} averages: train with ddp")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A loaded average goes where the weights are."""
        where = {name: each.device for name, each in pl_module.named_parameters()}
        self.average = {name: average.to(where[name]) for name, average in self.average.items()}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The average stands in for the weights until the end of the validation."""
        if not self.count:
            return
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                self.own.append(parameter.clone())
                parameter.copy_(self.average[name])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training goes on with its own weights."""
        self.put_own_back(pl_module)

    def put_own_back(self, module: nn.Module) -> None:
        """The weights of training, where the average stands in for them."""
        with torch.no_grad():
            for parameter, own in zip(module.parameters(), self.own, strict=False):
                parameter.copy_(own)
        self.own = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.count:
            checkpoint[AVERAGED] = self.average

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.average = checkpoint.get(AVERAGED, {})

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)


class ExponentialAverage(WeightAverage):
    """Recent steps count more: the mean of all steps while they are few, then an exponential moving average.

    Args:
        decay: what every further step multiplies the share of the earlier ones by.

    Raises:
        ValueError: if the decay is not in (0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay={decay} must lie between 0 and 1")
        super().__init__()
        self.decay = decay

    def share(self) -> float:
        return max(1 - self.decay, 1 / (self.count + 1))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.add(pl_module)


class TriggeredAverage(WeightAverage):
    """The mean of all steps since validation last got better: NT-ASGD, where the optimizer is SGD.

    Merity, Keskar and Socher (2018), "Regularizing and Optimizing LSTM Language Models", algorithm 1: the
    average begins with the weights whose validation loss is above the best of those more than `patience`
    validations before.

    Args:
        patience: validations in which no new best need be found; n in the paper.

    Raises:
        ValueError: if the patience is below 1.
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
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.count and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.add(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the average if the loss has stopped falling."""
        super().on_validation_end(trainer, pl_module)
        if self.count or trainer.sanity_checking:
            return
        loss = float(trainer.callback_metrics["val/loss"])
        if len(self.losses) > self.patience and loss > min(self.losses[: -self.patience]):
            self.add(pl_module)
            if trainer.is_global_zero:
                print(f"averaging of the weights starts at step {trainer.global_step}", flush=True)
        self.losses.append(loss)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "losses": self.losses}
