"""The time grid of a series: a constant step in microseconds, business days, months or counts.

A stamp is an integer in the unit of its grid: microseconds since 1970, business days since 1970, months since the
year 0, or the number in the table. Hours, days, weeks, months, quarters and years are therefore treated alike.

Legend: R rows of a table, L steps of a series.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from pipeline.dataset.codecs.table import distinct_texts
from pipeline.dataset.codecs.time_format import (
    COUNT,
    ISO,
    SECOND,
    UNIX,
    native_stamps,
    offset_of,
    parse_stamps,
    recognised,
    trimmed_stamps,
    write_stamps,
)
from pipeline.errors import ConfigError, DataError

TIME, BUSINESS, MONTH = "microsecond", "business day", "month"
DAY = 86_400 * SECOND
NAMES = {1: "microsecond", SECOND: "second", 60 * SECOND: "minute", 3600 * SECOND: "hour", DAY: "day", 7 * DAY: "week"}
# steps after which a series of that step usually repeats itself: a day of hours, a week of days, a year of months
SEASONS = {60 * SECOND: 1440, 3600 * SECOND: 24, DAY: 7, 7 * DAY: 52}
PRECISIONS = (DAY, "D"), (60 * SECOND, "m"), (SECOND, "s"), (1, "us")  # of stamps that are written
LAST_DAY, FIRST_BUSINESS_DAY, LAST_BUSINESS_DAY = -1, -2, -3  # of a month
EPOCH = np.datetime64("1970-01-01")


@dataclass(frozen=True)
class Grid:
    """The distance between neighboring stamps.

    Args:
        unit: unit of the stamps: TIME, BUSINESS, MONTH or COUNT.
        step: units from one stamp to the next.
        zone: time zone of the stamps ("Europe/Berlin", "UTC+01:00"), or "" for stamps without a zone. Stamps count
            UTC time if the step is shorter than a day, and local time otherwise.
        in_month: of MONTH: microseconds from the start of a month to its stamp, or LAST_DAY, FIRST_BUSINESS_DAY or
            LAST_BUSINESS_DAY; of BUSINESS: microseconds from midnight.
        time_format: format in which the stamps are written, see `time_format.py`.
    """

    unit: str
    step: int = 1
    zone: str = ""
    in_month: int = 0
    time_format: str = ISO

    @classmethod
    def of(cls, entry: Mapping[str, object]) -> "Grid":
        """Return the grid that a manifest describes."""
        return cls(**{each.name: entry[each.name] for each in fields(cls) if each.name in entry})  # type: ignore[arg-type]

    def as_json(self) -> dict[str, object]:
        """Return the entries of a manifest."""
        return asdict(self)

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
            first, following = ((months + at).astype("datetime64[M]").astype("datetime64[D]") for at in (0, 1))
            if self.in_month == FIRST_BUSINESS_DAY:
                return np.busday_offset(first, 0, roll="forward")
            if self.in_month == LAST_BUSINESS_DAY:
                return np.busday_offset(following, -1, roll="forward")
            if self.in_month == LAST_DAY:
                return following - 1
            return months.astype("datetime64[M]").astype("datetime64[us]") + self.in_month
        if self.unit == BUSINESS:
            days = np.busday_offset(EPOCH, stamps)
            return days.astype("datetime64[us]") + self.in_month if self.in_month else days
        return self._times(stamps).tz_localize(None).to_numpy() if self.is_utc else stamps.astype("datetime64[us]")

    def text(self, stamps: Int64[np.ndarray, " L"]) -> list[str]:
        """Return the stamps in the form that `stamps_of` reads."""
        if self.unit == COUNT:
            return [str(stamp) for stamp in stamps.tolist()]
        if self.time_format != ISO:
            return write_stamps(self._times(stamps), self.time_format)
        if self.zone:
            index = self._times(stamps)
            seconds = "seconds" if index.second.any() else "minutes"
            return [time.isoformat(" ", "microseconds" if time.microsecond else seconds) for time in index]
        times = self.local_times(stamps)
        if self.unit == MONTH and self.in_month == 0:
            return [str(time) for time in times.astype("datetime64[M]")]
        if self.unit == MONTH and self.in_month < 0:
            return [str(time) for time in times.astype("datetime64[D]")]
        microseconds = times.astype("datetime64[us]").astype(np.int64)
        step = self.step if self.unit == TIME else DAY
        precision = next(name for size, name in PRECISIONS if step % size == 0 and not (microseconds % size).any())
        return [str(time).replace("T", " ") for time in times.astype(f"datetime64[{precision}]")]

    @property
    def is_utc(self) -> bool:
        """Whether stamps count UTC time, which is converted to the zone."""
        return bool(self.zone) and self.unit == TIME and self.step % DAY != 0

    def _times(self, stamps: Int64[np.ndarray, " L"]) -> pd.DatetimeIndex:
        """Return the stamps as times in the zone of this grid, if it has one."""
        if self.is_utc:
            return pd.DatetimeIndex(stamps.astype("datetime64[us]")).tz_localize("UTC").tz_convert(self.zone)
        index = pd.DatetimeIndex(self.local_times(stamps))
        if not self.zone:
            return index
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
    """Unit, zone and format of the stamps; the step is 1."""
    values: Int64[np.ndarray, " R"]
    bad: Bool[np.ndarray, " R"]
    """True where a stamp is missing or cannot be read."""
    off: Bool[np.ndarray, " R"]
    """True where a stamp is not one of the months or business days of the grid."""


def stamps_of(
    column: "pa.ChunkedArray | pa.Array",
    zone: str = "",
    like: Grid | None = None,
    time_format: str = "",
    name: str = "time",
) -> Stamps:
    """Read the time column of a table.

    The unit is MONTH if all stamps are at the same moment of a month or all are last days or first or last business
    days of months, BUSINESS if they leave out weekends, else TIME.

    Args:
        column: times, dates, numbers, or texts such as 2016-07-01 13:00, 2016-07 or 2016-07-01 13:00+02:00.
        zone: time zone of the column (default: that of the column, if it has one).
        like: the grid of a dataset that was prepared before; its unit, zone and format are used.
        time_format: format of numbers and texts (default: recognised).
        name: name of the column, for error messages.

    Raises:
        ConfigError: the time zone does not exist.
        DataError: the format is not unique, or the stamps have several UTC offsets.
    """
    if like is not None:
        zone, time_format = zone or like.zone, COUNT if like.unit == COUNT else like.time_format
    if pa.types.is_temporal(column.type):
        index = native_stamps(column, name)
        like, time_format = None if like and like.unit == COUNT else like, like.time_format if like else ISO
    else:
        texts, places = distinct_texts(column)
        texts = trimmed_stamps(texts)
        given = [text for text in texts if text]
        time_format = time_format or recognised(given, name)
        if time_format == COUNT:
            return _counts(texts, places)
        index = parse_stamps(texts, time_format)[places]
        index = index.tz_localize("UTC") if zone and time_format in UNIX else index
        zone = offset_of(given, zone, name) if time_format == ISO else zone
    if like is not None and zone and not like.zone:
        raise DataError(f"column {name}: expected stamps without time zone, as in training, got {zone}. Convert them")
    return _on_grid(_in_zone(index, zone), like, time_format)


def _on_grid(index: pd.DatetimeIndex, like: Grid | None, time_format: str) -> Stamps:
    """Return times as stamps of the grid `like`, or of their own."""
    bad = np.asarray(index.isna())
    index = index.fillna(pd.Timestamp(0, tz=index.tz))
    local = index.tz_localize(None).as_unit("us").to_numpy()
    grid = replace(like or _grid_of(local[~bad], str(index.tz or "")), step=1, time_format=time_format)
    off = np.zeros(len(bad), bool)
    if grid.unit == MONTH:
        values = local.astype("datetime64[M]").astype(np.int64) + 1970 * 12
        off = grid.local_times(values) != local
    elif grid.unit == BUSINESS:
        values = np.busday_count(EPOCH, local.astype("datetime64[D]"))
        off = grid.local_times(values) != local
    elif like.is_utc if like else grid.zone and len(np.unique(local[~bad].astype(np.int64) % DAY)) > 1:
        values = index.tz_convert("UTC").as_unit("us").asi8
    else:
        values = local.astype(np.int64)
    return Stamps(grid, values.astype(np.int64), bad, off & ~bad)


def _counts(texts: list[str], places: Int64[np.ndarray, " R"]) -> Stamps:
    numbers = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(float)
    bad = ~(np.isfinite(numbers) & (numbers % 1 == 0))
    values = np.where(bad, 0, numbers).astype(np.int64)
    return Stamps(Grid(COUNT), values[places], bad[places], np.zeros(len(places), bool))


def _in_zone(index: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    """Return times in a time zone; in their own without one.

    Raises:
        ConfigError: the time zone does not exist.
    """
    try:
        if not zone:
            return index
        if index.tz is not None:
            return index.tz_convert(zone)
        try:
            return index.tz_localize(zone, ambiguous="infer", nonexistent="NaT")
        except ValueError:  # rows are not in order: the repeated hour cannot be resolved
            return index.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    except KeyError as error:  # of zoneinfo
        raise ConfigError(f"--time-zone={zone}: not a time zone. Use a name such as Europe/Berlin") from error


def _grid_of(local: np.ndarray, zone: str) -> Grid:
    """Return the unit of local times, as datetime64[us]."""
    months, days = local.astype("datetime64[M]"), local.astype("datetime64[D]")
    if len(np.unique(months)) > 1:
        if len(within := np.unique(local - months)) == 1:
            return Grid(MONTH, zone=zone, in_month=int(within[0].astype(np.int64)))
        for kind in (LAST_DAY, LAST_BUSINESS_DAY, FIRST_BUSINESS_DAY):
            grid = Grid(MONTH, zone=zone, in_month=kind)
            if (local == grid.local_times(months.astype(np.int64) + 1970 * 12)).all():
                return grid
    if len(of_day := np.unique(local - days)) == 1 and np.is_busday(days).all():
        apart = np.diff(np.unique(days))
        business = np.diff(np.unique(np.busday_count(EPOCH, days)))
        if (apart.astype(int) > business).any() and 2 * (business == 1).sum() > len(business):
            return Grid(BUSINESS, zone=zone, in_month=int(of_day[0].astype(np.int64)))
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
