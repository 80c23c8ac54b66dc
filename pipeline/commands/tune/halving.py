"""Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification", algorithm 1).

A budget is divided equally between rungs. In each rung all trials that are left train the same number of further
steps, then the better half is promoted to the next rung. For n trials and a budget of B steps:

    K = floor(log2 n) rungs,   u = floor(B / (n K)),   u * floor(n / s) further steps in a rung of s trials

For n = 2^K these are the paper's floor(B / (s K)) steps up to rounding. As multiples of u, all of them are validated at
the same steps. If n is not a power of 2, the paper has one more rung, with a single trial, which decides nothing.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from pipeline.errors import ConfigError


class Rung(NamedTuple):
    """One round of successive halving."""

    trials: int
    """Number of trials that are trained in it."""
    steps: int
    """Optimizer steps of each trial at its end, those of earlier rungs included."""


def rungs_of(trials: int, steps: int) -> list[Rung]:
    """Return the rungs of a number of trials; the first one's steps divide those of all others.

    Args:
        trials: number of trials.
        steps: budget in optimizer steps, all trials and rungs together.

    Raises:
        ConfigError: there are fewer than two trials, or the budget is smaller than one step per trial and rung.
    """
    if trials < 2:
        raise ConfigError(f"expected at least 2 trials to compare, got {trials}. Give more values of a key")
    count = trials.bit_length() - 1
    unit = steps // (trials * count)
    if not unit:
        raise ConfigError(
            f"budget: expected at least {trials * count:,} steps ({trials} trials in {count} rungs), got {steps:,}. "
            "Increase the budget, or give fewer values"
        )
    found, left, done = [], trials, 0
    while left > 1:
        done += unit * (trials // left)
        found.append(Rung(left, done))
        left //= 2
    return found


def promoted(losses: Mapping[int, float]) -> list[int]:
    """Return the better half of the trials of a rung, the best first; of equal ones, the first is better.

    Args:
        losses: loss of each trial by its number; infinite for one that diverged, which is never promoted.
    """
    order = sorted(losses, key=lambda trial: (losses[trial], trial))
    return [trial for trial in order[: max(1, len(order) // 2)] if math.isfinite(losses[trial])]
