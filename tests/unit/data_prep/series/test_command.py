"""Tables become datasets of series, and what makes them unfit is named in one report."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from data_prep.series import command as series
from data_prep.series.checks import leak
from pipeline.dataset.codecs.time_grid import Grid, cycles, stamps_of
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError, DataError

Prepare = Callable[..., Dataset]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """`prepare(ROWS, OPTION, ...)` makes a dataset of a CSV with these lines."""

    def prepare(rows: list[str], *options: Any) -> Dataset:
        (tmp_path / "table.csv").write_text("\n".join(rows))
        arguments = [str(tmp_path / "table.csv"), "--output", str(tmp_path / "data"), "--overwrite"]
        assert series.main([*arguments, *map(str, options)]) == 0
        return Dataset.open(tmp_path / "data", kind="series")

    return prepare


def hours(count: int) -> list[str]:
    return [f"2020-02-{27 + hour // 24} {hour % 24:02}:00" for hour in range(count)]


WIDE = ["time,a,b", *(f"{stamp},{number},{100 - number**2}" for number, stamp in enumerate(hours(40)))]


def test_a_wide_table_is_a_series_a_column_scaled_by_its_training_part(prepare: Prepare) -> None:
    dataset = prepare(WIDE, "--lengths", 20, 10, 8)
    split = dataset.splits["train"]
    assert split.names == ["a", "b"]
    assert split.first_steps.tolist() == [0, 38, 76]
    raw = np.stack([np.arange(38.0), 100 - np.arange(38.0) ** 2])
    mean, deviation = raw[:, :20].mean(1), raw[:, :20].std(1)
    np.testing.assert_allclose(split.values.reshape(2, 38), (raw - mean[:, None]) / deviation[:, None], rtol=1e-6)
    assert dataset.manifest["series"]["scaling"]["b"] == pytest.approx([mean[1], deviation[1]])
    assert {name: part.steps for name, part in dataset.splits.items()} == {"train": 40, "validation": 20, "test": 16}


def test_the_naive_error_is_that_of_the_season_in_the_training_part(prepare: Prepare) -> None:
    dataset = prepare(WIDE, "--lengths", 20, 10, 8, "--season", 3)
    deviation = np.arange(20.0).std()
    assert dataset.splits["test"].naive_errors[0] == pytest.approx(3 / deviation)


def test_windows_look_back_over_the_edge_and_predict_within_their_split(prepare: Prepare) -> None:
    splits = prepare(WIDE, "--lengths", 20, 10, 8).splits
    assert splits["train"].windows(5, 4, 1)[:, 1].tolist() == [*range(5, 17), *range(43, 55)]
    assert splits["validation"].windows(5, 4, 3).tolist() == [[0, 20], [0, 23], [0, 26], [1, 58], [1, 61], [1, 64]]
    assert splits["test"].windows(5, 8, 1).tolist() == [[0, 30], [1, 68]]
    assert len(splits["test"].windows(5, 9, 1)) == 0


def test_a_long_table_is_a_series_an_identity_split_at_the_same_stamps(prepare: Prepare, tmp_path: Path) -> None:
    rows = [f"{stamp},x,{n},{n % 2}" for n, stamp in enumerate(hours(40))]
    rows += [f"{stamp},y,{-n},{n % 2}" for n, stamp in enumerate(hours(40)[10:])]
    dataset = prepare(
        ["time,shop,sold,price", *rows[::-1]], "--id", "shop", "--known", "price", "--lengths", 20, 10, 10
    )
    assert dataset.splits["train"].names == ["y", "x"]
    assert dataset.splits["train"].windows(1, 1, 1)[:, 0].tolist() == [0] * 9 + [1] * 19
    assert dataset.splits["train"].known.shape == (70, 1)
    assert dataset.manifest["series"]["covariates"] == ["price"]


def test_parquet_and_packed_csv_give_what_csv_gives(prepare: Prepare, tmp_path: Path) -> None:
    plain = prepare(WIDE).checksum
    names, *rows = (line.split(",") for line in WIDE)
    columns = [pa.array([row[0] for row in rows]), *(pa.array([float(row[at]) for row in rows]) for at in (1, 2))]
    parquet.write_table(pa.table(columns, names=names), tmp_path / "table.parquet")
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress("\n".join(WIDE).encode()))
    for number, name in enumerate(("table.parquet", "table.csv.gz")):
        output = tmp_path / f"data{number}"
        assert series.main([str(tmp_path / name), "--output", str(output)]) == 0
        assert Dataset.open(output).splits["train"].values.tolist() == pytest.approx(
            Dataset.open(tmp_path / "data").splits["train"].values.tolist()
        )
    assert plain


def test_a_gap_is_refused_by_name_or_filled_and_never_predicted(prepare: Prepare) -> None:
    gappy = [line for number, line in enumerate(WIDE) if number not in (8, 9)]
    gappy[3] = gappy[3].rsplit(",", 1)[0] + ","
    said = r"5 x step without a value \(a from 2020-02-27 07:00: 2, b from 2020-02-27 02:00: 1, b from .*--fill-gaps"
    with pytest.raises(DataError, match=said):
        prepare(gappy)
    split = prepare(gappy, "--fill-gaps").splits["train"]
    missing = split.unobserved_before
    assert missing is not None
    assert np.flatnonzero(np.diff(missing)).tolist() == [7, 8, 42, 47, 48]
    assert split.values[7] == split.values[8] == split.values[6]


def test_all_that_makes_a_table_unfit_is_reported_at_once(prepare: Prepare) -> None:
    rows = ["time,value,flat,price"]
    rows += [f"{stamp},{math.sin(n)},3,{2 * math.sin(n + 5) + 1}" for n, stamp in enumerate(hours(60))]
    rows[7] = rows[6]
    rows.append("yesterday,1,3,2")
    rows.append("2020-02-29 13:30,1,3,2")
    with pytest.raises(DataError) as told:
        prepare(rows, "--known", "price")
    for said in (
        "1 x unreadable stamp (row 61: yesterday)",
        "1 x stamp that a series has twice (the table at 2020-02-27 05:00)",
        "1 x stamp between the steps of the grid (the table at 2020-02-29 13:30",
        "step without a value",
    ):
        assert said in str(told.value)


def test_constant_columns_and_covariates_that_reveal_the_target_are_reported(prepare: Prepare) -> None:
    rows = ["time,value,flat,price"]
    draw = np.random.default_rng(1).normal(size=80)
    rows += [f"{stamp},{draw[n]},3,{2 * draw[n + 5] + 1}" for n, stamp in enumerate(hours(60))]
    with pytest.raises(DataError, match=r"known covariate that reveals the target \(price is value 5 steps ahead\)"):
        prepare(rows, "--known", "price", "--drop", "flat")
    late = [rows[0], *(row.replace(",3,", ",4,") if n > 50 else row for n, row in enumerate(rows[1:]))]
    with pytest.raises(DataError, match=r"constant in its training part and varies later \(flat\): --drop it"):
        prepare(late, "--drop", "price")
    dataset = prepare(rows, "--drop", "price")
    assert dataset.manifest["series"]["scaling"]["flat"] == [3, 1]
    report = json.loads((dataset.path / "report.json").read_text())
    assert report["noted"] == {"series with a single value": {"count": 1, "first": ["flat (3)"]}}


@pytest.mark.parametrize("lead", [-7, 0, 12])
def test_an_affine_copy_is_found_at_any_shift_and_noise_is_none(lead: int) -> None:
    walk = np.random.default_rng(2).normal(size=300).cumsum()
    values = walk[50:250]
    assert leak(values, 3 - 2 * walk[50 + lead : 250 + lead]) == lead
    assert leak(values, walk[50:250] + np.random.default_rng(3).normal(size=200)) is None
    assert leak(values, np.sin(np.arange(200.0))) is None


def test_months_and_counts_are_grids_too(prepare: Prepare) -> None:
    months = [f"{1950 + n // 12}-{n % 12 + 1:02}" for n in range(48)]
    dataset = prepare(["month,value", *(f"{stamp},{n % 7}" for n, stamp in enumerate(months))], "--calendar")
    about = dataset.manifest["series"]
    assert (about["unit"], about["step"], about["season"]) == ("month", 1, 12)
    assert about["covariates"] == ["sine of year", "cosine of year"]
    assert Grid("month", 1).text(dataset.splits["train"].starts) == ["1950-01"]
    counted = prepare(["n,value", *(f"{5 * n},{n % 7}" for n in range(48))])
    assert (counted.manifest["series"]["unit"], counted.manifest["series"]["step"]) == ("count", 5)


def test_the_calendar_gives_where_in_day_week_and_year_a_stamp_lies() -> None:
    _, stamps, *_ = stamps_of(pa.array(["2020-01-06 00:00", "2020-01-06 06:00", "2020-07-02 00:00"]))
    names, values = cycles(Grid("microsecond", 3_600_000_000), stamps)
    assert names == [f"{wave} of {cycle}" for cycle in ("day", "week", "year") for wave in ("sine", "cosine")]
    np.testing.assert_allclose(values[0, :4], [0, 1, 0, 1], atol=1e-12)  # midnight of a Monday
    np.testing.assert_allclose(values[1, :2], [1, 0], atol=1e-12)
    np.testing.assert_allclose(values[2, 4:], [0, -1], atol=1e-12)  # the middle of a leap year


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        (["--target", "c"], DataError, "column not found. Choose among time, a, b"),
        (["--lengths", 30, 10, 10], DataError, "the sum is 50 steps, but the table has 40"),
        (["--validation-share", 0.6, "--test-share", 0.5], ConfigError, "the sum must be below 1"),
        (["--target", "a", "--known", "a"], DataError, "two roles"),
        (["--season", 0], ConfigError, "at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_one_line(prepare: Prepare, options: list[Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        prepare(WIDE, *options)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_text("no")
    for name, said in (("bad.parquet", "is not a table"), ("none.csv", "cannot be read")):
        with pytest.raises(DataError, match=rf"{name} {said}"):
            series.main([str(tmp_path / name), "--output", str(tmp_path / "data")])
