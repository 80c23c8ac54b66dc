"""The rungs of successive halving against the formula of the paper and computations by hand."""

import math

import pytest

from pipeline.commands.tune.halving import Rung, promoted, rungs_of
from pipeline.errors import ConfigError


def test_rungs_of_powers_of_two_are_those_of_the_paper() -> None:
    """Jamieson and Talwalkar 2016, algorithm 1: floor(B / (s ceil(log2 n))) further steps for each of s trials."""
    for power in (1, 2, 3, 5):
        trials, steps = 2**power, 960
        further = [steps // (trials // 2**k * power) for k in range(power)]
        expected = [Rung(trials // 2**k, sum(further[: k + 1])) for k in range(power)]
        assert rungs_of(trials, steps) == expected


def test_rungs_by_hand() -> None:
    assert rungs_of(8, 240) == [Rung(8, 10), Rung(4, 30), Rung(2, 70)]
    assert rungs_of(9, 270) == [Rung(9, 10), Rung(4, 30), Rung(2, 70)]  # a rung of one trial would decide nothing
    assert rungs_of(3, 10) == [Rung(3, 3)]


@pytest.mark.parametrize("trials", range(2, 40))
@pytest.mark.parametrize("steps", [300, 1001])
def test_the_budget_is_never_exceeded_and_validations_are_at_equal_steps(trials: int, steps: int) -> None:
    rungs = rungs_of(trials, steps)
    before = [0, *(rung.steps for rung in rungs)]
    assert sum(rung.trials * (rung.steps - start) for rung, start in zip(rungs, before, strict=False)) <= steps
    assert all(rung.steps % rungs[0].steps == 0 for rung in rungs)
    assert rungs[-1].trials // 2 == 1


def test_the_better_half_is_promoted_and_equal_trials_keep_their_order() -> None:
    assert promoted({1: 3.0, 2: 1.0, 3: 2.0, 4: 1.0}) == [2, 4]
    assert promoted({5: 3.0, 1: 4.0, 3: 2.0}) == [3]


def test_a_trial_that_diverged_is_never_promoted() -> None:
    assert promoted({1: math.inf, 2: 5.0, 3: math.inf, 4: math.inf}) == [2]
    assert promoted({1: math.inf, 2: math.inf}) == []


def test_a_budget_smaller_than_one_step_of_each_trial_and_rung_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget: expected at least 24 steps \(8 trials in 3 rungs\), got 23"):
        rungs_of(8, 23)
    with pytest.raises(ConfigError, match="expected at least 2 trials to compare, got 1"):
        rungs_of(1, 100)
