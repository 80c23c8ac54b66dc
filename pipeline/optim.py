"""How weights move: the learning rate over the steps, weight decay on matrices only, gradients clipped once.

A schedule is a function of the step and of what validation said, so a resumed run continues it exactly.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

__all__ = [
    "AdamW",
    "EpochDecay",
    "OptimizerCallable",
    "Plateau",
    "Schedule",
    "WarmupCosine",
    "parameter_groups",
    "total_steps",
]


class Schedule(ABC):
    """What the learning rate is multiplied by at each step."""

    @abstractmethod
    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """The factor at optimizer step `step`, counted from 0; `total_steps` is 0 where no step is known to be last."""

    def observe(self, loss: float) -> None:  # noqa: B027  # most schedules do not look at validation
        """Hear a validation loss, in nats a token."""

    def state_dict(self) -> dict[str, Any]:
        """What `observe` changed."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.__dict__.update(state)


class WarmupCosine(Schedule):
    """Linear warm-up, then half a cosine down to a share of the peak (Loshchilov and Hutter 2017, equation 5).

    A training that ends by the clock has no last step to come down to: it stays at the peak, so that what it learns
    in a step does not depend on how fast the machine is.

    Args:
        warmup_steps: steps until the full learning rate.
        final_share: the share of it that is left at the end.
    """

    def __init__(self, warmup_steps: int = 100, final_share: float = 0.1) -> None:
        self.warmup_steps, self.final_share = warmup_steps, final_share

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if total_steps == 0:
            return 1.0
        done = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        return self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * done)) / 2


class EpochDecay(Schedule):
    """Constant for `constant_epochs`, then multiplied by `factor` every epoch (Zaremba et al. 2014, section 4.1).

    Args:
        constant_epochs: epochs at the full learning rate.
        factor: what every later epoch multiplies it by.
    """

    def __init__(self, constant_epochs: int = 6, factor: float = 1 / 1.2) -> None:
        self.constant_epochs, self.factor = constant_epochs, factor

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return float(self.factor ** max(0, step // steps_per_epoch + 1 - self.constant_epochs))


class Plateau(Schedule):
    """Multiplied by `factor` when the validation loss has not fallen for `patience` validations.

    Args:
        factor: what the learning rate is multiplied by.
        patience: validations without a new best that are borne.
    """

    def __init__(self, factor: float = 0.25, patience: int = 1) -> None:
        self.factor, self.patience = factor, patience
        self.current, self.best, self.worse = 1.0, math.inf, 0

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.current

    def observe(self, loss: float) -> None:
        if loss < self.best:
            self.best, self.worse = loss, 0
            return
        self.worse += 1
        if self.worse > self.patience:
            self.current, self.worse = self.current * self.factor, 0

    def state_dict(self) -> dict[str, Any]:
        return {"current": self.current, "best": self.best, "worse": self.worse}


def total_steps(max_epochs: int | None, max_steps: int, steps_per_epoch: int) -> int:
    """Optimizer steps of a whole run: where the first of its limits is; 0 where there is none.

    Args:
        max_epochs: the trainer's; None and -1 for none.
        max_steps: the trainer's; -1 for none.
        steps_per_epoch: of the data.
    """
    limits = [limit for limit in ((max_epochs or 0) * steps_per_epoch, max_steps) if limit > 0]
    return min(limits) if limits else 0


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Two groups: matrices, which weight decay shrinks, and vectors (biases, gains), which it does not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if len(_shape(parameter)) >= 2]
    vectors = [parameter for parameter in trained if len(_shape(parameter)) < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """The shape of the whole parameter, also of one that ZeRO 3 has flattened and divided."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def gradient_norm(module: nn.Module) -> torch.Tensor:
    """The Euclidean norm of all gradients together; a DTensor where they are."""
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def full_tensor(value: torch.Tensor) -> torch.Tensor:
    """A tensor that may be divided among processes (a DTensor), put together on each; all of them call this."""
    return value.full_tensor() if isinstance(value, DTensor) else value
