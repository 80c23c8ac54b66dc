"""Histories are as strict as the tables of training, and forecasts have the precision of their series."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from data_prep.series import command as series
from pipeline.commands.generate.series import forecast_panels, rounded, rows_of
from pipeline.data.batch import SeriesBatch
from pipeline.dataset.codecs.series_table import read_series_table
from pipeline.dataset.manifest import Dataset
from pipeline.errors import DataError
from pipeline.tasks.forecast_tables import Window, forecast_windows, windows_of

HOURS = [str(hour)[:16] for hour in pd.date_range("2020-01-01", periods=60, freq="h")]
DAYS = [str(day)[:10] for day in pd.date_range("2020-01-01", periods=60, freq="D")]
ROWS = [f"{stamp},{at % 7},{at % 5},note" for at, stamp in enumerate(HOURS)]
NAMES = "time,x,price,note"


@pytest.fixture
def windows(tmp_path: Path) -> Callable[..., list[Window]]:
    """`windows(TABLE, HISTORY, OPTION, ...)` prepares a table and reads a history."""

    def windows(table: Sequence[str], history: Sequence[str], *options: str, context: int = 12) -> list[Window]:
        (tmp_path / "table.csv").write_text("\n".join(table))
        (tmp_path / "history.csv").write_text("\n".join(history))
        arguments = [str(tmp_path / "table.csv"), "--output", str(tmp_path / "data"), "--overwrite"]
        assert series.main([*arguments, *options]) == 0
        about = Dataset.open(tmp_path / "data").manifest["series"]
        table_read = read_series_table([tmp_path / "history.csv"], header=about["header"])
        return windows_of(table_read, about, context, 4, "history.csv")

    return windows


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([NAMES, *(f"{stamp},1,1,a" for stamp in DAYS)], "expected a step of 1 hour as in training, got 1 day"),
        ([NAMES, *ROWS[:20], *ROWS[21:]], r"1 x step without a value \(x from 2020-01-01 20:00: 1\)"),
        ([NAMES, *ROWS[:20], ROWS[20].replace(",6,", ",NA,"), *ROWS[21:]], "1 x step without a value"),
        ([NAMES, *ROWS, ROWS[30]], "1 x stamp that a series has twice"),
        ([NAMES, *ROWS[:20], "soon,1,1,a", *ROWS[20:]], r"1 x unreadable stamp \(row 21: soon\)"),
        ([NAMES, *ROWS[:20], ROWS[20].replace(",6,", ",?,"), *ROWS[21:]], r"1 x text in .* \(column x, row 21: \?\)"),
        ([NAMES, *ROWS[:20], ROWS[20].replace(",6,", ",inf,"), *ROWS[21:]], "1 x infinite value"),
        ([f"{NAMES},wind", *(f"{row},1" for row in ROWS)], "got a table with the unknown wind. Give a table with"),
        ([NAMES.replace("price", "cost"), *ROWS], "expected the columns time, x, price .* got a table without price"),
        ([NAMES, *(row.replace(" ", "T") + "" for row in ROWS[:9])], "the model requires at least 12 steps"),
        (
            [NAMES, *(row.replace(",", "+02:00,", 1) for row in ROWS)],
            "stamps without time zone, as in training, got UTC",
        ),
        ([NAMES, *(row.replace(",", ";", 1).split(";")[1] + ",1" for row in ROWS)], "unreadable stamp"),
        ([NAMES, *ROWS], "no value of price at 2020-01-03 12:00. Provide it over the whole horizon"),
    ],
)
def test_a_history_is_as_strict_as_the_table(
    windows: Callable[..., list[Window]], history: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        windows([NAMES, *ROWS], history, "--known", "price")


def test_gaps_are_filled_in_a_history_if_they_were_filled_in_the_table(windows: Callable[..., list[Window]]) -> None:
    [window] = windows([NAMES, *ROWS], [NAMES, *ROWS[:50], *ROWS[51:]], "--drop", "price", "--fill-gaps")
    assert len(window.context) == 12
    assert window.context[2] == window.context[1]


def test_columns_that_were_left_out_may_be_in_a_history(windows: Callable[..., list[Window]]) -> None:
    for names in (NAMES, NAMES.removesuffix(",note")):
        count = names.count(",") + 1
        [window] = windows(
            [NAMES, *ROWS], [names, *(",".join(row.split(",")[:count]) for row in ROWS)], "--drop", "price"
        )
        assert window.stamps[-4:] == [f"2020-01-03 {hour}:00" for hour in (12, 13, 14, 15)]


@pytest.mark.parametrize("options", [["--no-header", "--no-time"], ["--series-in-rows"], ["--decimal", "comma"]])
def test_a_history_has_the_layout_of_the_table(windows: Callable[..., list[Window]], options: list[str]) -> None:
    tables = {
        "--no-header": [f"{at % 7} {at % 5}" for at in range(60)],
        "--series-in-rows": ["V1,V2", *(f"a{k}," + ",".join(str(k * at % 7) for at in range(60)) for k in (1, 2))],
        "--decimal": ["day;a;b", *(f"{day};1.00{at % 7},5;{at % 3},25" for at, day in enumerate(DAYS))],
    }
    table = tables[options[0]]
    if options[0] == "--series-in-rows":
        table[0] = ",".join(f"V{at + 1}" for at in range(61))
    found = windows(table, table, *options)
    assert len(found) == 2
    last = {"--no-header": ["63"], "--series-in-rows": ["63"], "--decimal": ["2020-03-04"]}
    assert found[0].stamps[-1:] == last[options[0]]
    assert found[0].stamps == found[1].stamps


def test_month_starts_are_not_month_ends(windows: Callable[..., list[Window]]) -> None:
    starts, ends = (
        [f"{stamp:%Y-%m-%d},{at % 7}" for at, stamp in enumerate(pd.date_range("2015-01-01", periods=60, freq=freq))]
        for freq in ("MS", "ME")
    )
    with pytest.raises(DataError, match=r"60 x stamp between the steps of the grid \(row 1: 2015-01-01"):
        windows(["time,x", *ends], ["time,x", *starts])


@pytest.fixture
def about() -> dict[str, Any]:
    return {"time": "time", "scaling": {"meter": (1_234_567_890.0, 350.0)}}


@pytest.mark.numeric
def test_a_large_offset_keeps_its_digits(about: dict[str, Any]) -> None:
    context = np.linspace(-1, 1, 8, dtype=np.float32)
    window = Window("meter", [str(at) for at in range(10)], context, np.zeros((10, 0), np.float32))
    standard = torch.tensor([[[0.5, 0.501]]])

    def sample_paths(batch: SeriesBatch) -> torch.Tensor:
        return standard

    forecast = forecast_windows(sample_paths, [window], about["scaling"])
    expected = 1_234_567_890 + 350 * standard[0].double()
    assert forecast.mean.dtype == torch.float64
    torch.testing.assert_close(forecast.mean, expected, rtol=0, atol=1e-6)
    rows = list(rows_of([window], forecast, about, 2))
    assert rows == [
        ["time", "series", "forecast"],
        ["8", "meter", "1234568065"],
        ["9", "meter", "1234568065.35"],
    ]
    [panel] = forecast_panels([window], forecast, about["scaling"], 2)
    assert np.diff(panel.context) == pytest.approx(np.full(3, 100), abs=1e-3)


@pytest.mark.parametrize(
    ("value", "deviation", "text"),
    [
        (432.123456, 119.9, "432.12"),
        (1234567890.123, 0.5, "1234567890.123"),
        (-0.0123456789, 0.002, "-0.0123457"),
        (1.23456789e-30, 2e-31, "1.23457e-30"),
        (123456.789, 5e6, "123457"),
        (0.2, 5e6, "0.2"),
        (0.0, 1.0, "0"),
        (98765432109876543.0, 1.0, "98765432109876544"),
    ],
)
def test_digits_are_those_of_the_scale(value: float, deviation: float, text: str) -> None:
    assert rounded(value, deviation) == text
    assert abs(float(text) - value) <= 1e-4 * deviation


def test_a_series_that_was_dropped_may_be_in_a_history(windows: Callable[..., list[Window]]) -> None:
    rows = ["time,id,x", *(f"{stamp},{name},{at % 7}" for name in ("a", "b") for at, stamp in enumerate(HOURS))]
    assert [window.name for window in windows(rows, rows, "--id", "id", "--drop", "b")] == ["a"]
    with pytest.raises(DataError, match="series not in the training data: c"):
        windows(rows, [*rows, *(row.replace(",a,", ",c,") for row in rows[1:61])], "--id", "id")
