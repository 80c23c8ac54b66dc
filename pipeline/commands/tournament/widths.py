"""How wide a network has to be to have a given number of parameters: an exact search over whole widths.

Widths come in steps of a unit, the smallest that the network takes (a Transformer's must be divided by its heads).
The number of parameters grows with the width, so halving an interval finds the two widths around the target; the
nearer one is taken, the narrower one of two that are equally near.
"""

from collections.abc import Callable

from pipeline.errors import ConfigError

UNITS = 256  # widest step that is tried
WIDEST = 2**20


def nearest_width(target: int, count: Callable[[int], int]) -> int:
    """The width whose number of parameters is nearest to a target.

    Args:
        target: wanted number of parameters.
        count: parameters at a width.

    Raises:
        ConfigError: the network takes no width, whatever the unit; the message is its own.
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
    """The smallest step of widths of which the first three are taken."""
    for unit in range(1, UNITS + 1):
        try:
            for times in (1, 2, 3):
                count(times * unit)
        except ConfigError as error:
            refusal = error
            continue
        return unit
    raise refusal
