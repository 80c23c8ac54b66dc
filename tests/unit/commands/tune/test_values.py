"""Ranges and lists of values."""

import pytest

from pipeline.commands.tune.values import read_key, tuned_key
from pipeline.errors import ConfigError


def test_a_logarithmic_range_has_equal_ratios() -> None:
    assert read_key("lr=log:1e-4:1e-1:4").values == (0.0001, 0.001, 0.01, 0.1)
    values = read_key("lr=log:1e-4:1e-2").values
    assert values[:3] == (0.0001, 0.000193, 0.000373)  # 1e-4 * 100 ** (k / 7)
    assert len(values) == 8


def test_a_linear_range_has_equal_differences() -> None:
    assert read_key("dropout=linear:0:0.3:4").values == (0.0, 0.1, 0.2, 0.3)


def test_a_list_has_the_types_of_the_config() -> None:
    assert read_key("key=0,0.1,1e-4,true,null,relu").values == (0, 0.1, 0.0001, True, None, "relu")
    assert tuned_key("key", [1, 2.5]).values == (1, 2.5)


def test_a_value_on_an_edge_of_a_range_has_one_beyond_it() -> None:
    key = read_key("lr=log:1e-4:1e-1:4")
    assert [key.beyond(value) for value in key.values] == [0.00001, None, None, 1.0]
    assert read_key("x=linear:1:2:2").beyond(2.0) == 3.0
    assert read_key("x=1,2").beyond(2) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--over=lr: expected KEY=log:LOW:HIGH"),
        ("=1,2", "--over==1,2: expected KEY="),
        ("lr=log:1e-2:1e-4", "the range is empty, expected 0 < LOW < HIGH"),
        ("lr=log:0:1", "the range is empty, expected 0 < LOW < HIGH"),
        ("lr=linear:1:1:3", "the range is empty, expected LOW < HIGH"),
        ("lr=log:1:2:1", "at least 2 points"),
        ("lr=log:1:1.0001:9", "expected values that differ in 3 digits"),
        ("lr=log:1", "lr=log:1: expected numbers"),
        ("lr=log:a:b", "lr=log:a:b: expected numbers"),
        ("lr=1,1", "lr=1,1: expected distinct values"),
        ("lr=1,,2", "lr=1,,2: expected distinct values"),
        ("lr=", "lr=: expected distinct values"),
    ],
)
def test_invalid_values_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_key(text)
    assert message in str(refused.value)
