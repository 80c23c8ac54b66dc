"""Formats of stamps are recognised where a single one fits, and stamps are written in the format that was read."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.dataset.codecs.time_format import COUNT, ISO, check_time_format
from pipeline.dataset.codecs.time_grid import Grid, stamps_of
from pipeline.errors import ConfigError, DataError

DAYS = pd.date_range("2020-01-01", periods=40, freq="D")
HOURS = pd.date_range("2020-01-01", periods=40, freq="h")
SECONDS = HOURS.as_unit("s").asi8
MONTHS = pd.date_range("2003-01-01", periods=150, freq="MS")


@pytest.mark.parametrize(
    ("column", "time_format", "step"),
    [
        (DAYS.strftime("%d/%m/%Y"), "%d/%m/%Y", "1 day"),
        (DAYS.strftime("%m/%d/%Y"), "%m/%d/%Y", "1 day"),
        (DAYS.strftime("%d.%m.%Y"), "%d.%m.%Y", "1 day"),
        (HOURS.strftime("%d-%m-%Y %H:%M"), "", ""),
        (DAYS.strftime("%d-%m-%Y %H:%M"), "%d-%m-%Y %H:%M", "1 day"),
        (DAYS.strftime("%m/%d/%Y %I:%M %p"), "%m/%d/%Y %I:%M %p", "1 day"),
        (MONTHS.strftime("%b-%Y"), "%b-%Y", "1 month"),
        (MONTHS.strftime("%m/%Y"), "%m/%Y", "1 month"),
        (DAYS.strftime("%Y%m%d"), "%Y%m%d", "1 day"),
        (DAYS.strftime("%Y%m%d").astype(int), "%Y%m%d", "1 day"),
        (DAYS.strftime("%Y%m%d").astype(float), "%Y%m%d", "1 day"),
        (MONTHS.strftime("%Y%m"), "%Y%m", "1 month"),
        (HOURS.strftime("%Y%m%d%H"), "%Y%m%d%H", "1 hour"),
        (HOURS.strftime("%Y%m%d%H%M"), "%Y%m%d%H%M", "1 hour"),
        (range(1850, 1900), "%Y", "12 months"),
        (SECONDS, "seconds", "1 hour"),
        (SECONDS + 0.5, "seconds", "1 hour"),
        (1000 * SECONDS, "milliseconds", "1 hour"),
        (10**6 * SECONDS, "microseconds", "1 hour"),
        (10**9 * SECONDS, "nanoseconds", "1 hour"),
        (range(40), COUNT, "1 count"),
        (range(100_000, 100_040), COUNT, "1 count"),
        (np.arange(40.0), COUNT, "1 count"),
        (HOURS.strftime("%Y-%m-%dT%H:%MZ"), ISO, "1 hour"),
        (HOURS.strftime("%Y/%m/%d %H:%M"), ISO, "1 hour"),
        (HOURS.strftime("%Y-%m-%d %H:%M:%S UTC"), ISO, "1 hour"),
    ],
)
def test_the_only_format_that_fits_is_recognised(column: Sequence[object], time_format: str, step: str) -> None:
    values = pa.array([each.item() if isinstance(each, np.generic) else each for each in column])
    if not time_format:
        with pytest.raises(DataError, match="can be read as %d-%m-%Y %H:%M and as %m-%d-%Y %H:%M"):
            stamps_of(values)
        return
    read = stamps_of(values)
    grid = read.grid.with_step_of(read.values)
    assert not read.bad.any()
    assert str(grid) == step
    if time_format not in (ISO, COUNT):
        assert grid.time_format == time_format
        assert grid.text(read.values) == [str(each).removesuffix(".0") for each in column]
    again = stamps_of(values[3:5], like=Grid.of(grid.as_json()))
    assert again.values.tolist() == read.values[3:5].tolist()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["01/07/2016", "01/08/2016", "01/09/2016"], r"can be read as %d/%m/%Y and as %m/%d/%Y. Give --time-format"),
        (["200101", "200102", "200103"], "can be read as %Y%m and as %y%m%d"),
        ([str(43831 + at) for at in range(40)], "expected dates, or counts such as 0, 1, 2, got 43831. .* excel"),
        (["43831.5", "43831.75"], "got 43831.5. Give --time-format"),
        (["1958.2027", "1958.2877"], "got 1958.2027. Give --time-format"),
        (["0101", "0201", "0301"], "got 0101. Give --time-format"),
        (["100000000", "100003600"], "got 100000000. Give --time-format"),
        (["2020-01-01 00:00+01:00", "2020-01-01 01:00"], "UTC offset, got UTC.01:00, none"),
    ],
)
def test_several_formats_or_none_are_an_error_that_names_the_option(column: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        stamps_of(pa.array(column))


@pytest.mark.parametrize(
    ("text", "time_format", "expected"),
    [
        ("01/07/2016", "%d/%m/%Y", "2016-07-01"),
        ("01/07/2016", "%m/%d/%Y", "2016-01-07"),
        ("43831.0416666667", "excel", "2020-01-01 01:00"),
        ("100003600", "seconds", "1973-03-03 10:46:40"),
        ("200102", "%y%m%d", "2020-01-02"),
    ],
)
def test_the_given_format_is_used(text: str, time_format: str, expected: str) -> None:
    check_time_format(time_format)
    read = stamps_of(pa.array([text]), time_format=time_format)
    assert pd.Timestamp(int(read.values[0]), unit="us") == pd.Timestamp(expected)
    assert [float(each) if time_format == "excel" else each for each in read.grid.text(read.values)] == [
        pytest.approx(float(text), abs=1e-5) if time_format == "excel" else text
    ]


def test_a_format_that_does_not_exist_is_an_error() -> None:
    for wrong in ("day", "%Q"):
        with pytest.raises(ConfigError, match=f"--time-format={wrong}: expected iso, count"):
            check_time_format(wrong)


def test_unix_stamps_are_local_times_of_their_zone_and_written_as_they_were() -> None:
    times = pd.date_range("2024-10-26 22:00", periods=8, freq="h", tz="Europe/Berlin")
    texts = [str(each) for each in times.as_unit("s").asi8.tolist()]
    read = stamps_of(pa.array(texts), zone="Europe/Berlin")
    grid = read.grid.with_step_of(read.values)
    assert pd.DatetimeIndex(grid.local_times(read.values)).hour.tolist() == times.hour.tolist()
    assert grid.text(read.values) == texts


def test_a_wrong_stamp_among_dates_of_digits_is_bad() -> None:
    texts = [*DAYS.strftime("%Y%m%d"), "20200132", "yesterday"]
    assert np.flatnonzero(stamps_of(pa.array(texts)).bad).tolist() == [40, 41]
