"""The stamps of a series lie on a grid: a step of so many microseconds, months or counts between neighbours.

A stamp is an integer in the unit of its grid: microseconds since 1970, months since the year 0, or what was
counted. So hours, days, months, quarters, years and plain numbers are treated alike.

Legend: R rows of a table, L steps of a series.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

TIME, MONTH, COUNT = "microsecond", "month", "count"
SECOND = 1_000_000
DAY = 86_400 * SECOND
NAMES = {SECOND: "second", 60 * SECOND: "minute", 3600 * SECOND: "hour", DAY: "day", 7 * DAY: "week"}
# steps after which a series of that step usually repeats itself: a day of hours, a week of days, a year of months
SEASONS = {60 * SECOND: 1440, 3600 * SECOND: 24, DAY: 7, 7 * DAY: 52}
PRECISIONS = (DAY, "D"), (60 * SECOND, "m"), (SECOND, "s"), (1, "us")  # of stamps that are written
# what is known of any time: its place in each of these, as a sine and a cosine
CYCLES = ("day", "week", "year")


@dataclass(frozen=True)
class Grid:
    """The distance of neighbouring stamps.

    Args:
        unit: what stamps count: TIME, MONTH or COUNT.
        step: units from one stamp to the next.
    """

    unit: str
    step: int

    @classmethod
    def of(cls, unit: str, stamps: Int64[np.ndarray, " R"]) -> "Grid":
        """The grid on which most neighbours among the stamps are one step apart."""
        apart = np.diff(np.unique(stamps))
        if not len(apart):
            return cls(unit, 1)
        steps, counts = np.unique(apart, return_counts=True)
        return cls(unit, int(steps[counts.argmax()]))

    @property
    def season(self) -> int:
        """Steps after which a series of this step usually repeats itself; 1 where nothing is usual."""
        if self.unit == MONTH:
            return max(1, 12 // self.step)
        return SEASONS.get(self.step, 1) if self.unit == TIME else 1

    def text(self, stamps: Int64[np.ndarray, " L"]) -> list[str]:
        """Stamps as people and `stamps_of` read them."""
        if self.unit == COUNT:
            return [str(stamp) for stamp in stamps.tolist()]
        if self.unit == MONTH:
            return [f"{stamp // 12:04}-{stamp % 12 + 1:02}" for stamp in stamps.tolist()]
        fits = (name for size, name in PRECISIONS if self.step % size == 0 and not (stamps % size).any())
        whole = next(fits)
        return [
            str(stamp).replace("T", " ") for stamp in stamps.astype("datetime64[us]").astype(f"datetime64[{whole}]")
        ]

    def __str__(self) -> str:
        if self.unit == TIME:
            size, name = max(
                (size, name) for size, name in {1: "microsecond", **NAMES}.items() if self.step % size == 0
            )
        else:
            size, name = 1, self.unit
        number = self.step // size
        return f"{number} {name}{'' if number == 1 else 's'}"


def stamps_of(column: Any) -> tuple[str, Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """The unit of a table's column of stamps, the stamps, and where there is none that can be read.

    Args:
        column: an Arrow column of times, dates, integers or texts such as 2016-07-01 13:00 or 2016-07.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        return COUNT, *_filled(column.cast(pa.int64()))
    if pa.types.is_temporal(kind):
        return _months_if_so(*_filled(column.cast(pa.timestamp("us")).cast(pa.int64())))
    texts = column.cast(pa.string()).to_pylist()
    found = np.array([_parsed(text) for text in texts], "datetime64[us]")
    bad = np.isnat(found)
    return _months_if_so(np.where(bad, np.datetime64(0, "us"), found).astype(np.int64), bad)


def cycles(grid: Grid, stamps: Int64[np.ndarray, " L"]) -> tuple[list[str], np.ndarray]:
    """Names and values (L, K) of what the calendar says: where in the day, the week and the year each stamp lies.

    Cycles that the step does not subdivide are left out; a grid of counts has none.
    """
    if grid.unit == COUNT:
        return [], np.zeros((len(stamps), 0))
    if grid.unit == MONTH:
        places = {"year": (stamps % 12) / 12}
    else:
        times = stamps.astype("datetime64[us]")
        year = times.astype("datetime64[Y]")
        length = ((year + 1).astype("datetime64[us]") - year.astype("datetime64[us]")).astype(np.int64)
        places = {
            "day": (stamps % DAY) / DAY,
            "week": ((stamps + 3 * DAY) % (7 * DAY)) / (7 * DAY),  # 1970 began on a Thursday
            "year": (times - year.astype("datetime64[us]")).astype(np.int64) / length,
        }
        lengths = {"day": DAY, "week": 7 * DAY, "year": 365 * DAY}
        places = {name: places[name] for name in CYCLES if grid.step < lengths[name]}
    angles = {name: 2 * np.pi * place for name, place in places.items()}
    names = [f"{wave} of {name}" for name in angles for wave in ("sine", "cosine")]
    values = [wave(angle) for angle in angles.values() for wave in (np.sin, np.cos)]
    return names, np.stack(values, 1) if values else np.zeros((len(stamps), 0))


def _parsed(text: str | None) -> Any:
    try:
        return np.datetime64((text or "NaT").strip().removesuffix("Z").replace("/", "-"), "us")
    except ValueError:
        return np.datetime64("NaT")


def _filled(column: Any) -> tuple[Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    missing: Sequence[bool] = column.is_null().to_numpy()
    return column.fill_null(0).to_numpy().astype(np.int64), np.asarray(missing, bool)


def _months_if_so(
    stamps: Int64[np.ndarray, " R"], bad: Bool[np.ndarray, " R"]
) -> tuple[str, Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Stamps in months where all lie at the same moment of a month, else as they are."""
    times = stamps.astype("datetime64[us]")
    months = times.astype("datetime64[M]")
    within = (times - months.astype("datetime64[us]"))[~bad]
    several = len(np.unique(months[~bad])) > 1
    if not several or (within != within[0]).any():
        return TIME, stamps, bad
    return MONTH, months.astype(np.int64) + 1970 * 12, bad
