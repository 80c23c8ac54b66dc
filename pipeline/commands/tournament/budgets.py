"""What a training may cost, in tokens, seconds or FLOPs, as the limits of its trainer."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.errors import ConfigError


class TrainingCost(NamedTuple):
    """What a run costs."""

    flops_per_token: float
    steps: Callable[[float], int]
    """Most optimizer steps that stay within so many tokens."""


def of_tokens(tokens: float, cost: TrainingCost) -> dict[str, Any]:
    """As many steps as stay within so many training tokens.

    Raises:
        ConfigError: not even one does.
    """
    steps = cost.steps(tokens)
    if steps < 1:
        raise ConfigError(f"a budget of {tokens:,.0f} tokens is less than one step takes: raise it")
    return {"trainer.max_steps": steps, "trainer.max_epochs": -1, "trainer.max_time": None}


def of_flops(flops: float, cost: TrainingCost) -> dict[str, Any]:
    """As many steps as stay within so many floating-point operations of training."""
    return of_tokens(flops / cost.flops_per_token, cost)


def of_seconds(seconds: float, cost: TrainingCost) -> dict[str, Any]:
    """Training until so many seconds have passed, those of all attempts together, validations left out."""
    return {"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.max_time": {"seconds": seconds}}


BUDGETS: dict[str, Callable[[float, TrainingCost], dict[str, Any]]] = {
    "tokens": of_tokens,
    "seconds": of_seconds,
    "flops": of_flops,
}


def steps_within(tokens: float, batches: int, predictions: Callable[[int, int], int]) -> int:
    """Most steps whose tokens together are no more than these.

    Args:
        tokens: the limit.
        batches: of an epoch.
        predictions: tokens of a batch, given its epoch and its number.
    """
    steps, left = 0, tokens
    while (left := left - predictions(*divmod(steps, batches))) >= 0:
        steps += 1
    return steps
