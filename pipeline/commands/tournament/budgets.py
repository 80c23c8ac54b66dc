"""Convert a training budget in tokens, seconds or FLOPs to limits of the trainer."""

from collections.abc import Callable
from typing import NamedTuple

from pipeline.errors import ConfigError


class TrainingCost(NamedTuple):
    """The cost of a run."""

    flops_per_token: float
    steps: Callable[[float], int]
    """Returns the maximum number of optimizer steps within a number of tokens."""


def of_tokens(tokens: float, cost: TrainingCost) -> dict[str, object]:
    """Return limits for the maximum number of steps within a number of training tokens.

    Raises:
        ConfigError: the budget is smaller than one step.
    """
    steps = cost.steps(tokens)
    if steps < 1:
        raise ConfigError(f"budget: {tokens:,.0f} tokens are less than one step. Increase the budget")
    return {"trainer.max_steps": steps, "trainer.max_epochs": -1, "trainer.max_time": None}


def of_flops(flops: float, cost: TrainingCost) -> dict[str, object]:
    """Return limits for the maximum number of steps within a number of floating-point operations."""
    return of_tokens(flops / cost.flops_per_token, cost)


def of_seconds(seconds: float, cost: TrainingCost) -> dict[str, object]:
    """Return limits for a training time, summed over attempts, validations excluded."""
    return {"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.max_time": {"seconds": seconds}}


BUDGETS: dict[str, Callable[[float, TrainingCost], dict[str, object]]] = {
    "tokens": of_tokens,
    "seconds": of_seconds,
    "flops": of_flops,
}


def steps_within(tokens: float, batches: int, predictions: Callable[[int, int], int]) -> int:
    """Return the maximum number of steps with at most this total number of tokens.

    Args:
        tokens: the limit.
        batches: number of batches per epoch.
        predictions: returns the tokens of a batch from its epoch and its number.
    """
    steps, left = 0, tokens
    while (left := left - predictions(*divmod(steps, batches))) >= 0:
        steps += 1
    return steps
