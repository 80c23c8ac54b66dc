"""The values of a key of the config that a tuning compares: a range or a list."""

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import yaml

from pipeline.errors import ConfigError

POINTS = 8  # of a range, if it names no number
EXPECTED = "log:LOW:HIGH, log:LOW:HIGH:POINTS, linear:LOW:HIGH:POINTS or VALUE,VALUE,..."
Value = str | float | bool | None


class TunedKey(NamedTuple):
    """A key of the config and the values to compare."""

    key: str
    values: tuple[Value, ...]
    scale: str | None
    """`log` or `linear` for a range; None for a list."""

    def beyond(self, value: Value) -> float | None:
        """Return the value one step outside of the range if `value` is on its edge; None for others and for lists."""
        if self.scale is None or value not in (self.values[0], self.values[-1]):
            return None
        numbers = [float(each) for each in self.values if each is not None]
        last, before = (numbers[0], numbers[1]) if value == self.values[0] else (numbers[-1], numbers[-2])
        return _rounded(last**2 / before if self.scale == "log" else 2 * last - before)


def read_key(text: str) -> TunedKey:
    """Read `KEY=VALUES`, such as `model.init_args.optimizer.init_args.lr=log:1e-4:1e-2:7`.

    Raises:
        ConfigError: the values are none of the expected forms, or a range is empty.
    """
    key, equals, values = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"--over={text}: expected KEY={EXPECTED}")
    return tuned_key(key, values)


def tuned_key(key: str, given: str | Sequence[Value]) -> TunedKey:
    """Return a key and its values.

    Args:
        key: key of the config, in full.
        given: a range or a list as text, or a list of values.

    Raises:
        ConfigError: the values are none of the expected forms, or a range is empty.
    """
    if isinstance(given, str) and given.partition(":")[0] in ("log", "linear"):
        return _range(key, given)
    values = tuple(map(_value, given.split(",")) if isinstance(given, str) else given)
    if not values or "" in values or len(set(values)) < len(values):
        raise ConfigError(f"{key}={given}: expected distinct values. Give {EXPECTED}")
    return TunedKey(key, values, None)


def _range(key: str, text: str) -> TunedKey:
    scale, *words = text.split(":")
    try:
        low, high, points = (float(words[0]), float(words[1]), int(words[2]) if len(words) == 3 else POINTS)
        fits = len(words) in (2, 3) and math.isfinite(low) and math.isfinite(high)
    except (ValueError, IndexError):
        fits = False
    if not fits:
        raise ConfigError(f"{key}={text}: expected numbers, {EXPECTED}")
    if not low < high or points < 2 or (scale == "log" and low <= 0):
        least = "0 < LOW < HIGH" if scale == "log" else "LOW < HIGH"
        raise ConfigError(f"{key}={text}: the range is empty, expected {least} and at least 2 points. Change it")
    inner = [k / (points - 1) for k in range(1, points - 1)]
    between = (low * (high / low) ** x if scale == "log" else low + (high - low) * x for x in inner)
    values = (low, *map(_rounded, between), high)
    if len(set(values)) < points:
        raise ConfigError(f"{key}={text}: expected values that differ in 3 digits. Widen the range")
    return TunedKey(key, values, scale)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _value(text: str) -> Value:
    """Return a word as the config reads it."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(found, str):
        with suppress(ValueError):
            return float(found)  # 1e-4 is not a number in YAML 1.1
    return found if isinstance(found, str | float | int | bool) or (found is None and text) else text
