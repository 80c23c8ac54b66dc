"""The unit in which users read amounts of training data: tokens, seconds of audio, images, values of a series.

Journals count predictions, the targets that a loss is divided by; a unit converts them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Unit(NamedTuple):
    """What a training reads, in the plural, and how much of it one prediction is on average."""

    name: str = "tokens"
    per_prediction: float = 1.0

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Unit":
        """Return the unit of a run from its record; version 0.1 did not store it."""
        forecasts = (record.get("linked") or {}).get("horizon") is not None
        return cls(*record.get("unit", ["values"] if forecasts else []))

    def rate(self, predictions: float) -> str:
        """Return a speed in predictions per second as text: 11,023 tokens/s."""
        amount = predictions * self.per_prediction
        return f"{amount:,.0f} {self.name}/s" if amount >= 99.5 else f"{amount:.3g} {self.name}/s"
