"""Columns, ids and layouts of tables are read as written, are left out by name, or are an error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_prep.series import command as series
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError

Prepare = Callable[..., Dataset]
DAYS = [f"2020-{1 + day // 28:02}-{1 + day % 28:02}" for day in range(28)]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """`prepare(ROWS, OPTION, ...)` makes a dataset of a CSV with these lines."""

    def prepare(rows: list[str], *options: Any) -> Dataset:
        (tmp_path / "table.csv").write_text("\n".join(rows))
        arguments = [str(tmp_path / "table.csv"), "--output", str(tmp_path / "data"), "--overwrite"]
        assert series.main([*arguments, *map(str, options)]) == 0
        return Dataset.open(tmp_path / "data", kind="series")

    return prepare


def raw(dataset: Dataset, name: str) -> list[float]:
    """The values of a series in the units of its table."""
    split = dataset.splits["train"]
    number = split.names.index(name)
    mean, deviation = dataset.manifest["series"]["scaling"][name]
    values = split.values[split.first_steps[number] : split.first_steps[number + 1]].astype(float)
    return [round(float(value), 4) for value in mean + deviation * values]


def table(names: str, *cells: Callable[[int], object], sep: str = ",") -> list[str]:
    return [names, *(sep.join([stamp, *(str(cell(at)) for cell in cells)]) for at, stamp in enumerate(DAYS))]


def test_a_single_text_in_a_column_of_numbers_is_named(prepare: Prepare) -> None:
    rows = table("day,x,z", lambda at: "?" if at == 20 else at, lambda at: at % 5)
    with pytest.raises(DataError, match=r"1 x text in a column of numbers \(column x, row 21: \?\): correct it"):
        prepare(rows)
    assert prepare(rows, "--drop", "x").splits["train"].names == ["z"]


def test_missing_values_are_gaps_and_never_text(prepare: Prepare) -> None:
    rows = table("day,x", lambda at: "n/a" if at == 20 else at)
    with pytest.raises(DataError, match=r"1 x step without a value \(x from 2020-01-21: 1\)"):
        prepare(rows)
    assert raw(prepare(rows, "--fill-gaps"), "x")[19:22] == [19, 19, 21]


def test_columns_without_numbers_are_left_out_by_name(prepare: Prepare, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(
        "day,x,note,on,empty,until,",
        lambda at: at % 3,
        "a{}".format,
        lambda at: at % 2 > 0,
        lambda _: "",
        DAYS.__getitem__,
    )
    rows[1:] = [f"{row}," for row in rows[1:]]
    dataset = prepare(rows)
    assert dataset.splits["train"].names == ["x"]
    left_out = json.loads((dataset.path / "report.json").read_text())["left_out"]
    assert {reason: entry["first"] for reason, entry in left_out.items()} == {
        "column of text": ["note (a0)"],
        "column of truth values": ["on (False)"],
        "column without a value": ["empty"],
        "column of dates": ["until (2020-01-01)"],
        "column without a name": ["(no name)"],
    }
    assert "left out 5: 1 x column of text (note (a0))" in capsys.readouterr().out
    assert raw(prepare(rows, "--target", "on"), "on")[:4] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("decimal", "text", "value"), [("comma", "1.234,5", 1234.5), ("point", "1,234.5", 1234.5), ("", "1234.5", 1234.5)]
)
def test_the_decimal_mark_is_given_or_a_point(prepare: Prepare, decimal: str, text: str, value: float) -> None:
    rows = table("day;x", lambda at: text if at == 3 else at, sep=";")
    assert raw(prepare(rows, *(["--decimal", decimal] if decimal else [])), "x")[:5] == [0, 1, 2, value, 4]
    if decimal:
        with pytest.raises(DataError, match=r"number with separators \(column x, row 4: .*--decimal comma .* point"):
            prepare(rows)


def test_ids_are_text_as_written_and_joined_without_doubt(prepare: Prepare) -> None:
    ids = ["007,a b,c", "7,a,b c", "7.0,a,c", '7,NA,"x ""y"""']
    rows = [
        "day,n,p,q,x",
        *(f"{stamp},{name},{at * (at + k)}" for k, name in enumerate(ids) for at, stamp in enumerate(DAYS)),
    ]
    assert prepare(rows[:57], "--id", "n").splits["train"].names == ["007", "7"]
    names = ['"a b" c', 'a "b c"', "a c", 'NA "x ""y"""']
    dataset = prepare(rows, "--id", "p", "q", "--target", "x")
    assert dataset.splits["train"].names == names
    assert raw(dataset, "a c")[:4] == [0, 3, 8, 15]
    with pytest.raises(DataError, match=r"1 x row without an id \(row 29\)"):
        prepare([*rows[:29], rows[29].replace("7,a", " ,a"), *rows[30:57]], "--id", "n")


def test_names_of_several_targets_are_joined_without_doubt(prepare: Prepare) -> None:
    rows = ["day,id,b c,c", *(f"{stamp},{name},{at},{at**2}" for name in ("a", "a b") for at, stamp in enumerate(DAYS))]
    assert prepare(rows, "--id", "id").splits["train"].names == ['a "b c"', "a c", '"a b" "b c"', '"a b" c']


def test_an_index_without_name_is_not_the_time(prepare: Prepare) -> None:
    rows = [f"{at - 1 if at else ''},{row}" for at, row in enumerate(table("day,x", lambda at: at % 3))]
    with pytest.raises(
        DataError, match=r"the first column has no name, like an index. Give --time COLUMN, one of day, x"
    ):
        prepare(rows)
    assert prepare(rows, "--time", "day").splits["train"].names == ["x"]
    with pytest.raises(DataError, match=r"got counts, and dates in column day. Give --time day or --time n"):
        prepare(["n" + rows[0], *rows[1:]])


@pytest.mark.parametrize("sep", [",", ";", "\t", " ", "   "])
def test_tables_without_header_and_stamps(prepare: Prepare, sep: str) -> None:
    rows = [sep.join([str(at % 5 + 0.5), str(at % 3)]) for at in range(30)]
    with pytest.raises(
        DataError, match=r"first line with the names of the columns, got 0.5, 0. .* --no-header .* --no-time"
    ):
        prepare(rows)
    dataset = prepare(rows, "--no-header", "--no-time", "--lengths", 20, 5, 5)
    assert dataset.splits["train"].names == ["1", "2"]
    assert raw(dataset, "1")[:6] == [0.5, 1.5, 2.5, 3.5, 4.5, 0.5]
    about = dataset.manifest["series"]
    assert (about["unit"], about["time"], about["header"]) == ("count", "", False)


def test_a_header_that_is_a_row_is_recognised_by_its_date(prepare: Prepare) -> None:
    with pytest.raises(DataError, match=r"got 2020-01-01, 0. Add it, or prepare with --no-header$"):
        prepare(table("day,x", lambda at: at)[1:])
    assert raw(prepare(table("day,x", lambda at: at)[1:], "--no-header"), "2")[:3] == [0, 1, 2]
    assert prepare(table("day,0,1,2", *[lambda at: at] * 3)).splits["train"].names == ["0", "1", "2"]


def test_rows_separated_by_blanks_have_one_number_of_fields(prepare: Prepare) -> None:
    with pytest.raises(DataError, match="expected 2 fields separated by blanks in each row, got 3 in row 1"):
        prepare(["time x", *(f"{stamp} 00:00 {at}" for at, stamp in enumerate(DAYS))])


def test_a_series_in_each_row_has_its_own_length_and_splits(prepare: Prepare) -> None:
    """The layout of the M4 competition: an id, then values up to the end of the series."""
    names = ",".join(f'"V{at + 1}"' for at in range(31))
    rows = [[f"Y{k}", *(str(10 * k + at % 7) for at in range(length))] for k, length in ((1, 20), (2, 30))]
    lines = [names, *(",".join([*row, *[""] * (31 - len(row))]) for row in rows)]
    dataset = prepare(lines, "--series-in-rows")
    split = dataset.splits["train"]
    assert split.names == ["Y1", "Y2"]
    assert split.first_steps.tolist() == [0, 20, 50]
    assert raw(dataset, "Y2")[:9] == [20, 21, 22, 23, 24, 25, 26, 20, 21]
    assert split.windows(1, 1, 1)[:, 0].tolist() == [0] * 11 + [1] * 17  # three fifths of each
    assert {name: part.steps for name, part in dataset.splits.items()} == {"train": 30, "validation": 10, "test": 10}
    with pytest.raises(DataError, match=r"stamp that a series has twice \(Y1 in row 3\)"):
        prepare([*lines, lines[1]], "--series-in-rows")
    with pytest.raises(DataError, match=r"step without a value \(Y1 from 3: 1\)"):
        prepare([lines[0], lines[1].replace(",13,14", ",NA,14", 1), lines[2]], "--series-in-rows")


def test_series_without_stamps_have_counts(prepare: Prepare) -> None:
    rows = ["id,x", *(f"{name},{at * k}" for k, name in ((1, "a"), (2, "b")) for at in range(10 * k))]
    dataset = prepare(rows, "--no-time", "--id", "id")
    assert dataset.splits["train"].starts.tolist() == [0, 0]
    assert np.diff(dataset.splits["train"].first_steps).tolist() == [10, 20]


def test_a_value_that_may_be_missing_is_noted(prepare: Prepare) -> None:
    dataset = prepare(table("day,x,y", lambda at: -9999 if at % 9 == 5 else at, lambda at: 99 + at % 2))
    noted = json.loads((dataset.path / "report.json").read_text())["noted"]
    assert noted == {"value that may stand for a missing one": {"count": 1, "first": ["x (-9999)"]}}


def test_a_constant_is_recognised_relative_to_its_size(prepare: Prepare) -> None:
    dataset = prepare(table("day,x,y,z", lambda _: 0.1, lambda at: 1e9 + at * 1e-3, lambda at: at * 1e-12))
    scaling = dataset.manifest["series"]["scaling"]
    assert scaling["x"] == [0.1, 1]
    assert scaling["y"][1] == pytest.approx(np.arange(17).std() * 1e-3, rel=1e-4)
    assert scaling["z"][1] == pytest.approx(np.arange(17).std() * 1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--no-time", "--calendar"], ConfigError, "--calendar: not an option of tables with --no-time"),
        (["--series-in-rows", "--target", "x"], ConfigError, "--target: not an option of tables with --series-in-rows"),
        (["--series-in-rows", "--lengths", 9, 9, 9], ConfigError, "--lengths: series without stamps are split by"),
        (["--drop", "y"], ConfigError, "--drop y: expected a column or a series"),
        (["--time-format", "dmy"], ConfigError, "--time-format=dmy: expected iso"),
        (["--time", "x", "--calendar", "--target", "z"], ConfigError, "--calendar requires dates"),
    ],
)
def test_options_that_contradict_the_table_are_one_line(
    prepare: Prepare, options: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(table("day,x,z", lambda at: at, lambda at: at % 5), *options)


def test_a_column_name_that_occurs_twice_is_an_error(prepare: Prepare) -> None:
    with pytest.raises(DataError, match="the header has 'x' twice"):
        prepare(table("day,x,x", lambda at: at, lambda at: at))


def test_stamps_that_cannot_be_read_are_the_only_problem_reported(prepare: Prepare) -> None:
    with pytest.raises(
        DataError, match=r"28 x unreadable stamp \(row 1: Q0, row 2: Q1, .*--time-format PATTERN"
    ) as error:
        prepare(["day,x", *(f"Q{at},{at}" for at in range(28))])
    assert "without any value" not in str(error.value)


def test_parquet_of_pandas_is_read_as_csv_is(tmp_path: Path) -> None:
    values = np.arange(56) % 7 + 0.25
    frame = pd.DataFrame(
        {"id": ["007"] * 28 + ["7"] * 28, "day": pd.to_datetime(DAYS * 2), "x": values, "note": "a", "on": "True"}
    )
    frame.astype({"id": "category"}).to_parquet(tmp_path / "table.parquet", index=False)
    output = tmp_path / "data"
    assert series.main([str(tmp_path / "table.parquet"), "--time", "day", "--id", "id", "--output", str(output)]) == 0
    dataset = Dataset.open(output)
    assert dataset.splits["train"].names == ["007", "7"]
    assert raw(dataset, "7") == values[28:].tolist()
    left_out = json.loads((output / "report.json").read_text())["left_out"]
    assert [*left_out] == ["column of text", "column of truth values"]


def test_an_id_has_one_normal_form(prepare: Prepare) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    rows = [
        "day,city,x",
        *(f"{stamp},{composed if at < 14 else decomposed},{at}" for at, stamp in enumerate(DAYS)),
        *(f"{stamp},{decomposed} 2,{at % 5}" for at, stamp in enumerate(DAYS)),
    ]
    dataset = prepare(rows, "--id", "city")
    assert dataset.splits["train"].names == [composed, f"{composed} 2"]
    assert raw(dataset, composed) == list(range(28))


@pytest.mark.parametrize("power", [300, -170, -300])
def test_values_whose_squares_are_out_of_range_have_a_scale(prepare: Prepare, power: int) -> None:
    dataset = prepare(table("day,x,z", f"{{}}e{power}".format, lambda at: at * at % 7), "--known", "z")
    mean, deviation = dataset.manifest["series"]["scaling"]["x"]
    assert (mean / 10.0**power, deviation / 10.0**power) == pytest.approx((8, np.arange(17).std()))
    assert np.isfinite(dataset.splits["train"].values).all()


def test_a_column_that_is_false_throughout_is_left_out(prepare: Prepare) -> None:
    dataset = prepare(table("day,x,on", lambda at: at, lambda _: "False"))
    assert dataset.splits["train"].names == ["x"]


@pytest.mark.parametrize("kind", [pa.time32("s"), pa.duration("s"), pa.timestamp("ns")])
def test_times_without_dates_or_finer_than_microseconds_are_one_line(tmp_path: Path, kind: pa.DataType) -> None:
    stamps = pa.array(range(1, 29), pa.int64() if kind.bit_width == 64 else pa.int32()).cast(kind)
    parquet.write_table(pa.table({"t": stamps, "x": range(28)}), tmp_path / "table.parquet")
    with pytest.raises(DataError, match=r"column t: expected dates or times in whole microseconds, got "):
        series.main([str(tmp_path / "table.parquet"), "--output", str(tmp_path / "data")])
