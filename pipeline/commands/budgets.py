"""Convert a training budget in tokens, steps, seconds or FLOPs to limits of the trainer."""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pipeline.commands.plan.rate import make_task
from pipeline.data.batch_plan import MicroBatches
from pipeline.data.module import PlannedDataModule
from pipeline.errors import ConfigError
from pipeline.evaluation.flops import flops_of
from pipeline.training.config import CommandLine


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
    return of_steps(steps, cost)


def of_steps(steps: float, cost: TrainingCost) -> dict[str, object]:
    """Return limits for a number of optimizer steps."""
    return {"trainer.max_steps": int(steps), "trainer.max_epochs": -1, "trainer.max_time": None}


def of_flops(flops: float, cost: TrainingCost) -> dict[str, object]:
    """Return limits for the maximum number of steps within a number of floating-point operations."""
    return of_tokens(flops / cost.flops_per_token, cost)


def of_seconds(seconds: float, cost: TrainingCost) -> dict[str, object]:
    """Return limits for a training time, summed over attempts, validations excluded."""
    return {"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.max_time": {"seconds": seconds}}


BUDGETS: dict[str, Callable[[float, TrainingCost], dict[str, object]]] = {
    "tokens": of_tokens,
    "steps": of_steps,
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


def cost_of(cli: CommandLine, data: PlannedDataModule) -> TrainingCost:
    """Return the cost of a run, from the FLOPs of its first micro-batch and the sizes of its batches.

    Args:
        cli: the parsed config.
        data: its data.
    """
    samples = data.samples("train")
    order = data.plan(samples)
    part = next(iter(MicroBatches(order, data.divide(1, 0), samples.predictions)))
    counted = flops_of(lambda: make_task(cli), samples.__getitems__(part))

    def steps(tokens: float) -> int:
        return steps_within(tokens, len(order), lambda epoch, k: samples.predictions(order.batch(epoch, k)))

    return TrainingCost(counted / samples.predictions(part.ids), steps)


def words(settings: Mapping[str, object]) -> list[str]:
    """Return keys and values as arguments of the command line."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [word for key, text in texts.items() for word in (f"--{key}", text)]
