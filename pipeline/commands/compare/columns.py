"""The columns of a comparison: their titles, their formats, and which value is best."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

MISSING = "-"


class Column(NamedTuple):
    """One column of the table: its format, which value is best (None: no value), and what kind of figure it is."""

    title: str
    key: str
    show: Callable[[Any], str]
    best: Callable[[Iterable[float]], float] | None = None
    is_quality: bool = False
    in_unit: bool = False
    """Whether predictions are converted to the unit of the run's data."""

    @property
    def is_number(self) -> bool:
        """Whether cells are right-aligned."""
        return self.key not in ("name", "architecture")


def short_number(number: int | float) -> str:
    """Format a number with three significant digits and a unit: 12.3 M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 999.5 * size else f"{number / size:.0f} {unit}"
    return f"{number:.0f}" if number >= 99.5 or number == int(number) else f"{number:.3g}"


def short(architecture: str) -> str:
    """Return the class name of a task without its suffix: LSTM."""
    return architecture.removesuffix("LanguageModel").removesuffix("Forecaster") or architecture


def duration(seconds: int | float) -> str:
    """Format a duration: 12.3 s, 4:05 min, 1:02:03 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


NAMES = Column("run", "name", str), Column("architecture", "architecture", short)
RANK = Column("rank", "rank", str)
PARAMETERS = Column("parameters", "parameters", short_number)
COSTS = Column("memory GB", "memory_gb", "{:.2f}".format, min), Column("time", "seconds", duration)
FLOPS = Column("training FLOPs", "flops", short_number)
LOSS = Column("validation loss", "loss", "{:.4f}".format, min, is_quality=True)
TOKEN_QUALITY = (
    Column("validation perplexity", "perplexity", "{:.2f}".format, min, is_quality=True),
    Column("bits per byte", "bits_per_byte", "{:.3f}".format, min, is_quality=True),
)
FORECAST_QUALITY = (
    Column("validation MSE", "mse", "{:.4f}".format, min, is_quality=True),
    Column("validation MAE", "mae", "{:.4f}".format, min, is_quality=True),
)
ERRORS = "error_rate", "wrong_texts"
"""Ends of the names of scores that are better if they are smaller."""
SCORES = (
    *("word_error_rate", "phoneme_error_rate", "character_error_rate", "bleu", "cider_d", "chrf"),
    *("exact_match", "accuracy", "return", "wrong_texts"),
)
"""Scores of a validation, the most important first; other error rates come first."""
SHOWN = 2  # maximum number of scores in a table


def speed_column(unit: str) -> Column:
    """Return the column of the training speed."""
    return Column(f"{unit} per second", "tokens_per_second", short_number, max, in_unit=True)


def amount_column(unit: str) -> Column:
    """Return the column of the training data that was read, with repetitions."""
    return Column(f"{unit} trained", "tokens", short_number, in_unit=True)


def scores(names: Iterable[str]) -> list[Column]:
    """Return the columns of the most important scores among the names of a validation's metrics."""
    known = [name for name in names if name in SCORES or name.endswith(ERRORS)]
    known.sort(key=lambda name: SCORES.index(name) if name in SCORES else -1)
    return [score(name) for name in known[:SHOWN]]


def score(name: str) -> Column:
    """Return the column of a score."""
    better = min if name.endswith(ERRORS) else max
    return Column(f"validation {name.replace('_', ' ')}", name, "{:.4g}".format, better, is_quality=True)
