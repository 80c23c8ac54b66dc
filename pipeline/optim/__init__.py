"""Optimization: learning rate schedules, frozen parameters, weight decay on matrices only, the global gradient norm.

A schedule depends only on the step and on past validation losses, so a resumed run continues it exactly.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from pipeline.optim.selection import freeze, frozen_line, matching_parameters

__all__ = [
    "AdamW",
    "EpochDecay",
    "OptimizerCallable",
    "Plateau",
    "Schedule",
    "WarmupCosine",
    "WarmupStableDecay",
    "freeze",
    "frozen_line",
    "matching_parameters",
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

    def choices(self, step: int, total_steps: int) -> dict[str, str]:
        """Return what else can happen to the rate if a run of `total_steps` steps is lengthened at step `step`.

        Returns:
            Purposes by options of the schedule, each as NAME=VALUE; empty if there are none, or one was chosen.
        """
        return {}

    def observe(self, loss: float) -> None:  # noqa: B027  # most schedules ignore the validation loss
        """Update the schedule with a validation loss, in nats per token."""

    def state_dict(self) -> dict[str, object]:
        """Return the values that `observe` changes."""
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the values of a `state_dict`."""
        self.__dict__.update(state)


class Warmup(Schedule):
    """Linear warm-up, then a decay to a fraction of the peak, whose shape the subclass defines.

    A training limited by time has no known last step, so the rate stays at its peak. What a step does then
    does not depend on the speed of the machine.

    Args:
        warmup_steps: steps until the full learning rate.
        final_share: fraction of the full learning rate at the last step.
        warmup_share: steps until the full learning rate as a fraction of all steps; replaces `warmup_steps` in a run
            whose last step is known.
        decay_steps: steps until the end of the decay, after which the rate stays low; None for all steps of the run.
        rewarm_step: step of a second warm-up and decay, which ends with the run; the first one ends there, or after
            `decay_steps`. None for one decay.

    Raises:
        ValueError: `warmup_share` is outside [0, 1).
    """

    def __init__(
        self,
        warmup_steps: int = 100,
        final_share: float = 0.1,
        warmup_share: float | None = None,
        decay_steps: int | None = None,
        rewarm_step: int | None = None,
    ) -> None:
        if warmup_share is not None and not 0 <= warmup_share < 1:
            raise ValueError(f"warmup_share={warmup_share}: expected a number in [0, 1)")
        for name, value in (("decay_steps", decay_steps), ("rewarm_step", rewarm_step)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        self.warmup_steps, self.final_share, self.warmup_share = warmup_steps, final_share, warmup_share
        self.decay_steps, self.rewarm_step = decay_steps, rewarm_step

    @abstractmethod
    def height(self, step: int, warmup: int, steps: int) -> float:
        """Return the height above `final_share`, from 1 to 0, at a step after the warm-up of a decay of `steps`."""

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        first = self._first(total_steps)
        if self.rewarm_step is None or step < self.rewarm_step:
            return self._cycle(step, first)
        lowest = self._cycle(self.rewarm_step, first)
        return self._cycle(step - self.rewarm_step, max(0, total_steps - self.rewarm_step), lowest)

    def choices(self, step: int, total_steps: int) -> dict[str, str]:
        """Return the options that keep the old decay, and that begin another one."""
        if not total_steps or self.decay_steps or self.rewarm_step:
            return {}
        keep = {f"decay_steps={total_steps}": "keep the old decay"} if self.final_share else {}  # 0 trains nothing
        return keep | ({f"rewarm_step={step}": "warm up again and decay"} if step else {})

    def warning(self, total_steps: int) -> str | None:
        total_steps = self._first(total_steps)
        if not total_steps or self._warmup(total_steps) < total_steps:
            return None
        return (
            f"the run has {total_steps} steps and warmup_steps={self.warmup_steps}: the learning rate does not reach "
            "its full value. Decrease warmup_steps, or set warmup_share=0.05"
        )

    def _first(self, total_steps: int) -> int:
        """Return the steps of the first decay, counted from the first step of the run."""
        return self.decay_steps or self.rewarm_step or total_steps

    def _cycle(self, step: int, steps: int, lowest: float = 0.0) -> float:
        """Return the factor at a step of a warm-up from `lowest` and a decay."""
        warmup = self._warmup(steps)
        if step < warmup:
            return lowest + (1 - lowest) * (step + 1) / warmup
        if steps == 0:
            return 1.0
        return self.final_share + (1 - self.final_share) * self.height(step, warmup, steps)

    def _warmup(self, total_steps: int) -> int:
        return round(self.warmup_share * total_steps) if self.warmup_share and total_steps else self.warmup_steps


class WarmupCosine(Warmup):
    """Linear warm-up, then cosine decay to a fraction of the peak (Loshchilov and Hutter 2017, equation 5)."""

    def height(self, step: int, warmup: int, steps: int) -> float:
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return (1 + math.cos(math.pi * done)) / 2


class WarmupStableDecay(Warmup):
    """Linear warm-up, a constant rate, then linear decay (WSD; Hägele et al. 2024, arXiv:2405.18392).

    Before the decay the rate does not depend on the length of the run. So a run can become longer without a jump.

    Args:
        decay_share: steps of the decay as a fraction of all steps.
        final_share, warmup_steps, warmup_share, decay_steps, rewarm_step: as for `Warmup`.

    Raises:
        ValueError: `decay_share` is outside [0, 1], or another option is invalid.
    """

    def __init__(
        self,
        decay_share: float = 0.2,
        final_share: float = 0.0,
        warmup_steps: int = 100,
        warmup_share: float | None = None,
        decay_steps: int | None = None,
        rewarm_step: int | None = None,
    ) -> None:
        super().__init__(warmup_steps, final_share, warmup_share, decay_steps, rewarm_step)
        if not 0 <= decay_share <= 1:
            raise ValueError(f"decay_share={decay_share}: expected a number in [0, 1]")
        self.decay_share = decay_share

    def height(self, step: int, warmup: int, steps: int) -> float:
        decay = min(max(1, round(self.decay_share * steps)), max(1, steps - warmup))
        return max(0.0, min(1.0, (steps - step) / decay))


class EpochDecay(Schedule):
    """Constant for `constant_epochs`, then multiplied by `factor` every epoch (Zaremba et al. 2014, section 4.1).

    Args:
        constant_epochs: epochs at the full learning rate.
        factor: multiplier.
        every: epochs from one multiplication to the next.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, constant_epochs: int = 6, factor: float = 1 / 1.2, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every={every}: expected at least 1")
        self.constant_epochs, self.factor, self.every = constant_epochs, factor, every

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        later = step // steps_per_epoch + 1 - self.constant_epochs
        return float(self.factor ** max(0, -(-later // self.every)))


class Plateau(Schedule):
    """Multiplied by `factor` when the validation loss has not improved for `patience` validations.

    The rule of `torch.optim.lr_scheduler.ReduceLROnPlateau`, with a relative threshold.

    Args:
        factor: multiplier of the learning rate.
        patience: validations without improvement before the rate is reduced.
        threshold: fraction of the best loss by which a loss must be lower to count as an improvement.
        cooldown: validations after a reduction in which the lack of an improvement does not count.

    Raises:
        ValueError: the factor or the threshold is out of range, or a number of validations is negative.
    """

    def __init__(self, factor: float = 0.25, patience: int = 1, threshold: float = 0.0, cooldown: int = 0) -> None:
        if not 0 < factor < 1 or not 0 <= threshold < 1:
            raise ValueError(f"factor={factor}, threshold={threshold}: expected numbers in (0, 1) and [0, 1)")
        if patience < 0 or cooldown < 0:
            raise ValueError(f"patience={patience} and cooldown={cooldown} must be at least 0")
        self.factor, self.patience, self.threshold, self.cooldown = factor, patience, threshold, cooldown
        self.current, self.best = 1.0, math.inf
        self.worse = 0  # validations without improvement; negative in a cooldown

    def scale(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.current

    def observe(self, loss: float) -> None:
        improved, cooling = loss < self.best * (1 - self.threshold), self.worse < 0
        self.best = loss if improved else self.best
        self.worse = 0 if improved and not cooling else self.worse + 1
        if self.worse > self.patience:
            self.current, self.worse = self.current * self.factor, -self.cooldown

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


def parameter_groups(module: nn.Module, hidden: Collection[nn.Parameter] = ()) -> list[dict[str, object]]:
    """Return two parameter groups: matrices, with weight decay, and vectors (biases, gains), without.

    Args:
        module: the model.
        hidden: matrices that are in a group of their own, before the others.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    apart = [parameter for parameter in trained if parameter in hidden]
    matrices = [parameter for parameter in trained if len(_shape(parameter)) >= 2 and parameter not in hidden]
    vectors = [parameter for parameter in trained if len(_shape(parameter)) < 2]
    groups: list[dict[str, object]] = [{"params": apart, "hidden": True}, {"params": matrices}]
    groups.append({"params": vectors, "weight_decay": 0.0})
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
