"""Stamps of every calendar are read, written and placed in the calendar as pandas does."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.dataset.codecs.findings import Findings
from pipeline.dataset.codecs.series_table import TableLayout
from pipeline.dataset.codecs.time_format import COUNT
from pipeline.dataset.codecs.time_grid import BUSINESS, LAST_DAY, MONTH, TIME, Grid, cycles, stamps_of
from pipeline.dataset.codecs.time_series import frames_of
from pipeline.errors import ConfigError, DataError

HOUR = 3_600_000_000
CALENDARS = {
    "month starts": (pd.date_range("2019-11-01", periods=30, freq="MS"), MONTH, 1, "1 month", 12),
    "month ends": (pd.date_range("2019-11-30", periods=30, freq="ME"), MONTH, 1, "1 month", 12),
    "15ths of months": (
        pd.date_range("2019-11-01", periods=30, freq="MS") + pd.Timedelta(days=14),
        MONTH,
        1,
        "1 month",
        12,
    ),
    "quarter ends": (pd.date_range("2019-03-31", periods=30, freq="QE"), MONTH, 3, "3 months", 4),
    "year ends": (pd.date_range("1990-12-31", periods=30, freq="YE"), MONTH, 12, "12 months", 1),
    "last business days": (pd.date_range("2019-11-01", periods=30, freq="BME"), MONTH, 1, "1 month", 12),
    "first business days": (pd.date_range("2019-11-01", periods=30, freq="BMS"), MONTH, 1, "1 month", 12),
    "business quarter ends": (pd.date_range("2019-11-01", periods=30, freq="BQE"), MONTH, 3, "3 months", 4),
    "business days": (pd.date_range("2019-12-27", periods=30, freq="B"), BUSINESS, 1, "1 business day", 5),
    "days": (pd.date_range("2019-12-27", periods=30, freq="D"), TIME, 24 * HOUR, "1 day", 7),
    "Fridays": (pd.date_range("2019-12-27", periods=30, freq="W-FRI"), TIME, 7 * 24 * HOUR, "1 week", 52),
    "hours": (pd.date_range("2019-12-27", periods=30, freq="h"), TIME, HOUR, "1 hour", 24),
}


@pytest.mark.parametrize("name", CALENDARS)
@pytest.mark.parametrize("as_text", [True, False])
def test_the_stamps_of_a_calendar_are_consecutive_and_written_as_they_were(name: str, as_text: bool) -> None:
    times, unit, step, text, season = CALENDARS[name]
    texts = [str(time).removesuffix(":00") if unit == TIME and step == HOUR else str(time.date()) for time in times]
    read = stamps_of(pa.array(texts) if as_text else pa.array(times.to_pydatetime()))
    grid = read.grid.with_step_of(read.values)
    assert (grid.unit, grid.step, str(grid), grid.season) == (unit, step, text, season)
    assert not read.bad.any()
    assert set(np.diff(read.values)) == {step}
    written = [each[:7] for each in texts] if name == "month starts" else texts
    assert grid.text(read.values) == written
    further = read.values[-1] + step * np.arange(1, 4)
    expected = times[-1] + (times.freq or pd.offsets.DateOffset(months=1)) * np.arange(1, 4)
    assert [pd.Timestamp(each) for each in grid.text(further)] == list(expected)
    assert Grid.of(grid.as_json()) == grid


@pytest.mark.parametrize("name", [name for name in CALENDARS if "month" in name or "days" in name])
def test_a_short_history_is_read_on_the_grid_of_its_dataset(name: str) -> None:
    times = CALENDARS[name][0]
    whole = stamps_of(pa.array(times.to_pydatetime()))
    grid = whole.grid.with_step_of(whole.values)
    part = stamps_of(pa.array(times[3:5].to_pydatetime()), like=grid)
    assert part.grid.unit == grid.unit
    assert part.values.tolist() == whole.values[3:5].tolist()


def test_hours_around_daylight_saving_are_consecutive_and_keep_their_offsets() -> None:
    times = pd.date_range("2024-10-26 22:00", periods=8, freq="h", tz="Europe/Berlin")
    texts = [time.isoformat(" ", "minutes") for time in times]
    with pytest.raises(DataError, match=r"one UTC offset, got UTC\+01:00, UTC\+02:00. Give .* --time-zone"):
        stamps_of(pa.array(texts))
    for column in (pa.array(texts), pa.array([text[:16] for text in texts]), pa.array(times.to_pydatetime())):
        read = stamps_of(column, zone="Europe/Berlin")
        assert not read.bad.any()
        grid = read.grid.with_step_of(read.values)
        assert (grid.step, grid.zone, grid.text(read.values)) == (HOUR, "Europe/Berlin", texts)
        values = cycles(grid, read.values)[1]
        hours = 2 * np.pi * times.hour.to_numpy() / 24  # of local time: 2 o'clock comes twice
        np.testing.assert_allclose(values[:, 0], np.sin(hours), atol=1e-12)


def test_local_midnights_are_days_apart_across_daylight_saving() -> None:
    times = pd.date_range("2024-03-29", periods=5, freq="D", tz="Europe/Berlin")
    read = stamps_of(pa.array([time.isoformat(" ", "minutes") for time in times]), zone="Europe/Berlin")
    grid = read.grid.with_step_of(read.values)
    assert set(np.diff(read.values)) == {24 * HOUR}
    assert grid.text(read.values)[-1] == "2024-04-02 00:00+02:00"


def test_months_and_business_days_keep_their_zone_and_time_of_day() -> None:
    months = pd.date_range("2024-01-01", periods=14, freq="MS", tz="Europe/Berlin")
    closes = pd.bdate_range("2024-01-01", periods=90) + pd.Timedelta(hours=16)
    for times, zone, unit in ((months, "Europe/Berlin", MONTH), (closes, "", BUSINESS)):
        texts = [time.isoformat(" ", "minutes") for time in times]
        read = stamps_of(pa.array(texts), zone=zone)
        grid = read.grid.with_step_of(read.values)
        assert (grid.unit, grid.step, grid.text(read.values)) == (unit, 1, texts)
        assert stamps_of(pa.array(texts[3:5]), like=grid).values.tolist() == read.values[3:5].tolist()


def test_stamps_that_are_not_of_the_grid_are_off() -> None:
    for name, others in (
        ("month starts", ["2024-01-02", "2024-02-01"]),
        ("business days", ["2024-01-06", "2024-01-08"]),
    ):
        whole = stamps_of(pa.array(CALENDARS[name][0].to_pydatetime()))
        read = stamps_of(pa.array(others), like=whole.grid)
        assert read.off.tolist() == [True, False]
        assert not read.bad.any()


def test_one_offset_is_kept() -> None:
    texts = ["2024-01-01 00:00+05:30", "2024-01-01 01:00+05:30"]
    read = stamps_of(pa.array(texts))
    assert read.grid.with_step_of(read.values).text(read.values) == texts


def test_what_cannot_be_read_is_bad_and_an_unknown_zone_is_an_error() -> None:
    read = stamps_of(pa.array(["2024-01-01", None, "soon", "2024-01-03", "2024/01/02", ""]))
    assert read.bad.tolist() == [False, True, True, False, False, True]
    assert stamps_of(pa.array([3, None, 5])).grid == Grid(COUNT)
    with pytest.raises(ConfigError, match="--time-zone=Berlin: not a time zone"):
        stamps_of(pa.array(["2024-01-01 00:00"]), zone="Berlin")


def test_the_calendar_of_month_ends_and_business_days() -> None:
    names, values = cycles(Grid(MONTH, 1, in_month=LAST_DAY), np.array([2024 * 12 + 3]))
    assert names == ["sine of year", "cosine of year"]
    np.testing.assert_allclose(values, [[1, 0]], atol=1e-12)  # April: a quarter of the year
    monday = np.busday_count("1970-01-01", "2024-07-01")
    names, values = cycles(Grid(BUSINESS), np.array([monday]))
    assert names[:2] == ["sine of week", "cosine of week"]
    np.testing.assert_allclose(values[0, :2], [0, 1], atol=1e-12)


@pytest.mark.parametrize(
    ("model", "history", "message"),
    [
        ("days", "month ends", "expected a step of 1 day as in training, got 1 month"),
        ("month ends", "days", "expected a step of 1 month as in training, got 1 day"),
        ("hours", "days", "expected a step of 1 hour as in training, got 1 day"),
        ("business days", "hours", "expected a step of 1 business day as in training, got 1 hour"),
        ("quarter ends", "month ends", "expected a step of 3 months as in training, got 1 month"),
    ],
)
def test_a_history_with_another_step_is_rejected(model: str, history: str, message: str) -> None:
    read = stamps_of(pa.array(CALENDARS[model][0].to_pydatetime()))
    table = pa.table({"time": pa.array(CALENDARS[history][0].to_pydatetime()), "value": np.arange(30.0)})
    layout = TableLayout("time", (), ("value",), (), calendar=False)
    with pytest.raises(DataError, match=message):
        frames_of(table, layout, Findings(), read.grid.with_step_of(read.values))


@pytest.mark.parametrize("name", CALENDARS)
def test_a_history_with_the_same_step_is_read(name: str) -> None:
    times = CALENDARS[name][0]
    read = stamps_of(pa.array(times.to_pydatetime()))
    table = pa.table({"time": pa.array(times[4:12].to_pydatetime()), "value": np.arange(8.0)})
    findings = Findings()
    _, [frame] = frames_of(
        table, TableLayout("time", (), ("value",), (), calendar=False), findings, read.grid.with_step_of(read.values)
    )
    assert frame.values.tolist() == list(range(8))
    assert not findings.counts
