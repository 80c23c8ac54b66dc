"""A budget determines the exact number of steps."""

import itertools

import pytest

from pipeline.commands.budgets import BUDGETS, TrainingCost, steps_within
from pipeline.errors import ConfigError

SIZES = ([5, 3, 4], [4, 5, 3])  # tokens of the batches of two epochs


def size(epoch: int, k: int) -> int:
    return SIZES[epoch % 2][k]


@pytest.mark.parametrize("tokens", range(40))
def test_the_steps_are_the_most_that_stay_within_the_tokens(tokens: int) -> None:
    spent = list(itertools.accumulate(size(*divmod(step, 3)) for step in range(30)))
    assert steps_within(tokens, 3, size) == sum(total <= tokens for total in spent)


def test_flops_are_tokens_times_what_a_token_costs() -> None:
    cost = TrainingCost(flops_per_token=6e6, steps=lambda tokens: int(tokens // 2048))
    assert BUDGETS["flops"](6e6 * 2048 * 7.5, cost) == BUDGETS["tokens"](2048 * 7.5, cost)
    assert BUDGETS["tokens"](2048 * 7.5, cost)["trainer.max_steps"] == 7


def test_seconds_are_the_limit_of_the_trainer_and_no_steps() -> None:
    limits = BUDGETS["seconds"](60, TrainingCost(1.0, lambda tokens: 0))
    assert limits == {"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.max_time": {"seconds": 60}}


def test_less_than_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="budget: 2,047 tokens are less than one step"):
        BUDGETS["tokens"](2047, TrainingCost(1.0, lambda tokens: int(tokens // 2048)))
