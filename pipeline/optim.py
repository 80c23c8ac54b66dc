"""Optimization: learning rate schedules, weight decay on matrices only, and the global gradient norm.

A schedule depends only on the step and on past validation losses, so a resumed run continues it exactly.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

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
    """The factor on the learning rate at each step."""

    @abstractmethod
    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return the factor at optimizer step `step`, counted from 0; `total_steps` is 0 if the end is not known."""

    def warning(self, total_steps: int) -> str | None:
        """Return why the schedule does not suit a run of `total_steps` steps (0: unknown); None if it does."""
        return None

    def observe(self, loss: float) -> None:  # noqa: B027  # most schedules ignore the validation loss
        """Update the schedule with a validation loss, in nats per token."""

    def state_dict(self) -> dict[str, object]:
        """Return the values that `observe` changes."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the values of a `state_dict`."""
        self.__dict__.update(state)


class WarmupCosine(Schedule):
    """Linear warm-up, then cosine decay to a fraction of the peak (Loshchilov and Hutter 2017, equation 5).

    A training limited by time has no known last step, so the rate stays at its peak. What a step does then
    does not depend on the speed of the machine.

    Args:
        warmup_steps: steps until the full learning rate.
        final_share: fraction of the full learning rate at the last step.
        warmup_share: steps until the full learning rate as a fraction of all steps; replaces `warmup_steps` in a run
            whose last step is known.

    Raises:
        ValueError: `warmup_share` is outside [0, 1).
    """

    def __init__(self, warmup_steps: int = 100, final_share: float = 0.1, warmup_share: float | None = None) -> None:
        if warmup_share is not None and not 0 <= warmup_share < 1:
            raise ValueError(f"warmup_share={warmup_share}: expected a number in [0, 1)")
        self.warmup_steps, self.final_share, self.warmup_share = warmup_steps, final_share, warmup_share

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        warmup = self._warmup(total_steps)
        if step < warmup:
            return (step + 1) / warmup
        if total_steps == 0:
            return 1.0
        done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * done)) / 2

    def warning(self, total_steps: int) -> str | None:
        if not total_steps or self._warmup(total_steps) < total_steps:
            return None
        return (
            f"the run has {total_steps} steps and warmup_steps={self.warmup_steps}: the learning rate does not reach "
            "its full value. Decrease warmup_steps, or set warmup_share=0.05"
        )

    def _warmup(self, total_steps: int) -> int:
        return round(self.warmup_share * total_steps) if self.warmup_share and total_steps else self.warmup_steps


class EpochDecay(Schedule):
    """Constant for `constant_epochs`, then multiplied by `factor` every epoch (Zaremba et al. 2014, section 4.1).

    Args:
        constant_epochs: epochs at the full learning rate.
        factor: multiplier per later epoch.
    """

    def __init__(self, constant_epochs: int = 6, factor: float = 1 / 1.2) -> None:
        self.constant_epochs, self.factor = constant_epochs, factor

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return float(self.factor ** max(0, step // steps_per_epoch + 1 - self.constant_epochs))


class Plateau(Schedule):
    """Multiplied by `factor` when the validation loss has not improved for `patience` validations.

    Args:
        factor: multiplier of the learning rate.
        patience: validations without improvement before the rate is reduced.
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

    def state_dict(self) -> dict[str, object]:
        return {"current": self.current, "best": self.best, "worse": self.worse}


def total_steps(max_epochs: int | None, max_steps: int, steps_per_epoch: int) -> int:
    """Return the number of optimizer steps of a whole run, by its first limit; 0 without a limit.

    Args:
        max_epochs: the trainer's; None or -1 for no limit.
        max_steps: the trainer's; -1 for no limit.
        steps_per_epoch: optimizer steps per epoch of the data.
    """
    limits = [limit for limit in ((max_epochs or 0) * steps_per_epoch, max_steps) if limit > 0]
    return min(limits) if limits else 0


def parameter_groups(module: nn.Module) -> list[dict[str, object]]:
    """Return two parameter groups: matrices, with weight decay, and vectors (biases, gains), without."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if len(_shape(parameter)) >= 2]
    vectors = [parameter for parameter in trained if len(_shape(parameter)) < 2]
    groups: list[dict[str, object]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return the shape of the whole parameter, also where ZeRO 3 has flattened and partitioned it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the Euclidean norm of all gradients together; a DTensor if they are DTensors."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def full_tensor(value: torch.Tensor) -> torch.Tensor:
    """Return the full tensor of a DTensor; a collective call. Other tensors are returned as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value
