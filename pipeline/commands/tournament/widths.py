"""Find the width of a network for a given number of parameters.

Widths are multiples of a unit, the smallest that the network accepts (a Transformer's width must be divisible by its
heads). The number of parameters grows with the width, so bisection finds the two widths around the target. The nearer
one is returned, or the narrower one if both are equally near.
"""

from collections.abc import Callable

from pipeline.errors import ConfigError

UNITS = 256  # largest unit to try
WIDEST = 2**20


def nearest_width(target: int, count: Callable[[int], int]) -> int:
    """Return the width whose number of parameters is nearest to a target.

    Args:
        target: required number of parameters.
        count: returns the number of parameters at a width.

    Raises:
        ConfigError: the network rejects the widths of every unit; the message is the network's.
    """
    unit = _unit(count)
    low, high = 1, 2
    while count(high * unit) < target and high < WIDEST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if count(middle * unit) < target:
            low = middle
        else:
            high = middle
    return min((low * unit, high * unit), key=lambda width: abs(count(width) - target))


def _unit(count: Callable[[int], int]) -> int:
    """Return the smallest unit whose first three multiples are accepted."""
    for unit in range(1, UNITS + 1):
        try:
            for times in (1, 2, 3):
                count(times * unit)
        except ConfigError as error:
            refusal = error
            continue
        return unit
    raise refusal
