"""The time grid of a series: a constant step in microseconds, business days, months or counts.

A stamp is an integer in the unit of its grid: microseconds since 1970, business days since 1970, months since the
year 0, or the number in the table. Hours, days, weeks, months, quarters and years are therefore treated alike.

Legend: R rows of a table, L steps of a series.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from pipeline.errors import ConfigError

TIME, BUSINESS, MONTH, COUNT = "microsecond", "business day", "month", "count"
SECOND = 1_000_000
DAY = 86_400 * SECOND
NAMES = {1: "microsecond", SECOND: "second", 60 * SECOND: "minute", 3600 * SECOND: "hour", DAY: "day", 7 * DAY: "week"}
# steps after which a series of that step usually repeats itself: a day of hours, a week of days, a year of months
SEASONS = {60 * SECOND: 1440, 3600 * SECOND: 24, DAY: 7, 7 * DAY: 52}
PRECISIONS = (DAY, "D"), (60 * SECOND, "m"), (SECOND, "s"), (1, "us")  # of stamps that are written
LAST_DAY = -1
EPOCH = np.datetime64("1970-01-01")
OFFSET = re.compile(r"\d[T ]\d{2}.*?(Z|[+-]\d{2}:?\d{2})$")  # of a time of day to UTC


@dataclass(frozen=True)
class Grid:
    """The distance between neighboring stamps.

    Args:
        unit: unit of the stamps: TIME, BUSINESS, MONTH or COUNT.
        step: units from one stamp to the next.
        zone: time zone of the stamps ("Europe/Berlin", "UTC+01:00"), or "" for stamps without a zone. Stamps count
            UTC time if the step is shorter than a day, and local time otherwise.
        in_month: of MONTH: microseconds from the start of a month to its stamp, or LAST_DAY.
    """

    unit: str
    step: int = 1
    zone: str = ""
    in_month: int = 0

    @classmethod
    def of(cls, entry: Mapping[str, object]) -> "Grid":
        """Return the grid that a manifest describes."""
        fields = ("unit", "step", "zone", "in_month")
        return cls(**{name: entry[name] for name in fields if name in entry})  # type: ignore[arg-type]

    def as_json(self) -> dict[str, object]:
        """Return the entries of a manifest."""
        return {"unit": self.unit, "step": self.step, "zone": self.zone, "in_month": self.in_month}

    def with_step_of(self, stamps: Int64[np.ndarray, " R"]) -> "Grid":
        """Return this grid with the most frequent distance between neighboring stamps as its step."""
        apart = np.diff(np.unique(stamps))
        if not len(apart):
            return self
        steps, counts = np.unique(apart, return_counts=True)
        return replace(self, step=int(steps[counts.argmax()]))

    @property
    def season(self) -> int:
        """Steps after which a series of this step usually repeats itself; 1 where nothing is usual."""
        if self.unit == MONTH:
            return max(1, 12 // self.step)
        if self.unit == BUSINESS:
            return 5 if self.step == 1 else 1
        return SEASONS.get(self.step, 1) if self.unit == TIME else 1

    def local_times(self, stamps: Int64[np.ndarray, " L"]) -> np.ndarray:
        """Return the local time of each stamp as datetime64; the stamps must not be counts."""
        if self.unit == MONTH:
            months = stamps - 1970 * 12
            if self.in_month == LAST_DAY:
                return (months + 1).astype("datetime64[M]").astype("datetime64[D]") - 1
            return months.astype("datetime64[M]").astype("datetime64[us]") + self.in_month
        if self.unit == BUSINESS:
            return np.busday_offset(EPOCH, stamps)
        times = stamps.astype("datetime64[us]")
        return self._index(times).tz_localize(None).to_numpy() if self.is_utc else times

    def text(self, stamps: Int64[np.ndarray, " L"]) -> list[str]:
        """Return the stamps in the form that `stamps_of` reads."""
        if self.unit == COUNT:
            return [str(stamp) for stamp in stamps.tolist()]
        times = self.local_times(stamps)
        if self.unit == MONTH and self.in_month == 0:
            return [str(time) for time in times.astype("datetime64[M]")]
        if self.unit == BUSINESS or self.in_month == LAST_DAY:
            return [str(time) for time in times.astype("datetime64[D]")]
        if self.zone:
            index = self._index(stamps.astype("datetime64[us]"))
            seconds = "seconds" if (stamps % (60 * SECOND)).any() else "minutes"
            return [time.isoformat(" ", "microseconds" if time.microsecond else seconds) for time in index]
        microseconds = times.astype("datetime64[us]").astype(np.int64)
        step = self.step if self.unit == TIME else DAY
        precision = next(name for size, name in PRECISIONS if step % size == 0 and not (microseconds % size).any())
        return [str(time).replace("T", " ") for time in times.astype(f"datetime64[{precision}]")]

    @property
    def is_utc(self) -> bool:
        """Whether stamps count UTC time, which is converted to the zone."""
        return bool(self.zone) and self.step % DAY != 0

    def _index(self, times: np.ndarray) -> pd.DatetimeIndex:
        """Return times with the zone of this grid."""
        index = pd.DatetimeIndex(times)
        if self.is_utc:
            return index.tz_localize("UTC").tz_convert(self.zone)
        return index.tz_localize(self.zone, ambiguous=np.ones(len(index), bool), nonexistent="shift_forward")

    def __str__(self) -> str:
        if self.unit == TIME:
            size, name = max((size, name) for size, name in NAMES.items() if self.step % size == 0)
        else:
            size, name = 1, self.unit
        number = self.step // size
        return f"{number} {name}{'' if number == 1 else 's'}"


class Stamps(NamedTuple):
    """The time column of a table."""

    grid: Grid
    """Unit and zone of the stamps; the step is 1."""
    values: Int64[np.ndarray, " R"]
    bad: Bool[np.ndarray, " R"]
    """True where a stamp is missing or cannot be read."""
    offsets: tuple[str, ...] = ()
    """UTC offsets that the stamps are written with, if their time zone is not known."""


def stamps_of(column: "pa.ChunkedArray | pa.Array", zone: str = "", like: Grid | None = None) -> Stamps:
    """Read the time column of a table.

    The unit is MONTH if all stamps are at the same moment of a month or all are last days of months, BUSINESS if
    they leave out weekends, else TIME.

    Args:
        column: times, dates, integers, or texts such as 2016-07-01 13:00, 2016-07 or 2016-07-01 13:00+02:00.
        zone: time zone of the column (default: that of the column, if it has one).
        like: the grid of a dataset that was prepared before; its unit and zone are used.

    Raises:
        ConfigError: the time zone does not exist.
    """
    if pa.types.is_integer(column.type):
        bad = np.asarray(column.is_null().to_numpy(zero_copy_only=False), bool)
        return Stamps(Grid(COUNT), column.fill_null(0).to_numpy().astype(np.int64), bad)
    index, offsets = _index_of(column, zone or (like.zone if like else ""))
    bad = np.asarray(index.isna())
    index = index.fillna(pd.Timestamp(0, tz=index.tz))
    local = index.tz_localize(None).as_unit("us").to_numpy()
    grid = like or _grid_of(local[~bad], str(index.tz or ""))
    if grid.unit == MONTH:
        values = local.astype("datetime64[M]").astype(np.int64) + 1970 * 12
    elif grid.unit == BUSINESS:
        values = np.busday_count(EPOCH, local.astype("datetime64[D]"))
    elif like.is_utc if like else grid.zone and len(np.unique(local[~bad].astype(np.int64) % DAY)) > 1:
        values = index.tz_convert("UTC").as_unit("us").asi8
    else:
        values = local.astype(np.int64)
    return Stamps(replace(grid, step=1), values.astype(np.int64), bad, offsets)


def _index_of(column: "pa.ChunkedArray | pa.Array", zone: str) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Return the times of a column, in its own time zone or in `zone`, and its UTC offsets if the zone is unknown."""
    offsets: set[str] = set()
    if pa.types.is_temporal(column.type):
        index = pd.DatetimeIndex(column.cast(pa.timestamp("us", getattr(column.type, "tz", None))).to_pandas())
    else:
        texts = [(text or "").strip().replace("/", "-") for text in column.cast(pa.string()).to_pylist()]
        offsets = {found[1] if (found := OFFSET.search(text)) else "" for text in texts if text}
        index = pd.DatetimeIndex(pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=offsets != {""}))
        if not zone and len(offsets) == 1 and (offset := next(iter(offsets))) not in ("", "Z"):
            zone = f"UTC{offset[:3]}:{offset[-2:]}"
    try:
        if zone and index.tz is None:
            try:
                return index.tz_localize(zone, ambiguous="infer", nonexistent="NaT"), ()
            except ValueError:  # rows are not in order: the repeated hour cannot be resolved
                return index.tz_localize(zone, ambiguous="NaT", nonexistent="NaT"), ()
        return (index.tz_convert(zone), ()) if zone else (index, tuple(sorted(offsets - {""})))
    except KeyError as error:  # of zoneinfo
        raise ConfigError(f"time zone {zone!r} does not exist. Use a name such as Europe/Berlin.") from error


def _grid_of(local: np.ndarray, zone: str) -> Grid:
    """Return the unit of local times, as datetime64[us]."""
    months, days = local.astype("datetime64[M]"), local.astype("datetime64[D]")
    if len(np.unique(months)) > 1:
        if (local == days).all() and ((days + 1).astype("datetime64[M]") > months).all():
            return Grid(MONTH, in_month=LAST_DAY)
        if len(within := np.unique(local - months)) == 1:
            return Grid(MONTH, in_month=int(within[0].astype(np.int64)))
    if len(np.unique(local - days)) == 1 and np.is_busday(days).all():
        apart = np.diff(np.unique(days))
        business = np.diff(np.unique(np.busday_count(EPOCH, days)))
        if (apart.astype(int) > business).any() and 2 * (business == 1).sum() > len(business):
            return Grid(BUSINESS)
    return Grid(TIME, zone=zone)


def cycles(grid: Grid, stamps: Int64[np.ndarray, " L"]) -> tuple[list[str], Float64[np.ndarray, "L K"]]:
    """Return names and values (L, K) of calendar covariates: the position of each stamp in the day, week and year.

    Each position is a sine and a cosine, of local time. Cycles that are not longer than the step are left out; a grid
    of counts has none.
    """
    if grid.unit == COUNT:
        return [], np.zeros((len(stamps), 0))
    times = pd.DatetimeIndex(grid.local_times(stamps))
    day = (times - times.normalize()) / pd.Timedelta(days=1)
    positions = {
        "day": day,
        "week": (times.day_of_week + day) / 7,
        "year": (times.month - 1) / 12
        if grid.unit == MONTH
        else (times.day_of_year - 1 + day) / (365 + times.is_leap_year),
    }
    shortest = {TIME: grid.step, BUSINESS: grid.step * DAY, MONTH: grid.step * 30 * DAY}[grid.unit]
    lengths = {"day": DAY, "week": 7 * DAY, "year": 365 * DAY}
    angles = {name: 2 * np.pi * np.asarray(positions[name]) for name in lengths if shortest < lengths[name]}
    names = [f"{wave} of {name}" for name in angles for wave in ("sine", "cosine")]
    values = [wave(angle) for angle in angles.values() for wave in (np.sin, np.cos)]
    return names, np.stack(values, 1) if values else np.zeros((len(stamps), 0))
