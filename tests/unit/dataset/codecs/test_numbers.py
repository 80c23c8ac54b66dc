"""Numbers of tables are read as written, are missing, or are named as neither."""

import datetime
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest

from pipeline.dataset.codecs.numbers import numbers_of


@pytest.mark.parametrize("text", ["", " ", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "-", "<NA>"])
def test_spellings_of_a_missing_value(text: str) -> None:
    read = numbers_of(pa.array(["1", text, "2"]))
    np.testing.assert_array_equal(read.values, [1, np.nan, 2])
    assert not read.bad.any()


@pytest.mark.parametrize(
    ("decimal", "text", "value"),
    [
        ("", "1.5", 1.5),
        ("", " -1.5e-3 ", -0.0015),
        ("", "+.5", 0.5),
        ("", "5.", 5),
        ("", "inf", math.inf),
        ("", "1,5", None),
        ("", "1,234.5", None),
        ("", "1 234", None),
        ("", "5%", None),
        ("", "1_000", None),
        ("comma", "1,5", 1.5),
        ("comma", "-1.234.567,25", -1234567.25),
        ("comma", "1.234", 1234),
        ("comma", "100.25", None),
        ("comma", "12", 12),
        ("point", "1,234.5", 1234.5),
        ("point", "1.234", 1.234),
        ("point", "1,23", None),
        ("point", "1'234.5", 1234.5),
        ("comma", "1\u202f234,5", 1234.5),
        ("comma", "1 23,5", None),
    ],
)
def test_separators_are_never_guessed(decimal: str, text: str, value: float | None) -> None:
    read = numbers_of(pa.array(["7", text]), decimal)
    assert read.values[0] == 7
    assert read.bad.tolist() == [False, value is None]
    assert math.isnan(read.values[1]) if value is None else read.values[1] == value


def test_points_that_may_separate_thousands_are_not_read_as_fractions() -> None:
    read = numbers_of(pa.array(["987", "1.012", "998", "1.103"]))
    assert read.separated.tolist() == [False, True, False, True]
    assert numbers_of(pa.array(["987", "1.012"]), "point").values.tolist() == [987, 1.012]
    assert numbers_of(pa.array(["987", "1.012"]), "comma").values.tolist() == [987, 1012]
    for other in (["987", "1.012", "1.5"], ["0", "0.125"], ["1.012", "2.013"]):
        assert not numbers_of(pa.array(other)).bad.any()


def test_text_is_bad_and_its_share_is_measured_without_missing_values() -> None:
    read = numbers_of(pa.array(["1", "?", "NA", "2", "1,5"]))
    assert read.bad.tolist() == [False, True, False, False, True]
    assert read.separated.tolist() == [False, False, False, False, True]
    assert read.share == 0.75
    assert math.isnan(numbers_of(pa.array(["", "NA"])).share)
    assert numbers_of(pa.array(["2020-01-01", "a"])).share == 0


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1, None, 2**60 + 1]), [1, np.nan, 2.0**60]),
        (pa.array([decimal.Decimal("1.25")]), [1.25]),
        (pa.array([True, None, False]), [1, np.nan, 0]),
        (pa.array(["True", "false", ""]), [1, 0, np.nan]),
        (pa.array(["1", "x", "1"]).dictionary_encode(), [1, np.nan, 1]),
        (pa.array([None, None]), [np.nan, np.nan]),
        (pa.array(["1", "x", "NA"], pa.large_string()), [1, np.nan, np.nan]),
    ],
)
def test_columns_of_other_types_are_numbers_too(column: pa.Array, values: list[float]) -> None:
    np.testing.assert_array_equal(numbers_of(pa.chunked_array([column])).values, values)


def test_dates_are_not_numbers() -> None:
    assert numbers_of(pa.array([datetime.date(2020, 1, 1), None])).bad.tolist() == [True, False]
