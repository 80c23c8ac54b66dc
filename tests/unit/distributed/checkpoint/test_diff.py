"""Trees are compared leaf by leaf, bitwise."""

import math

import pytest
import torch

from pipeline.distributed.checkpoint.diff import Difference, compare, same_bits


def only(one: object, two: object) -> Difference:
    [row] = compare({"x": one}, {"x": two})
    return row


def test_a_tree_equals_itself() -> None:
    tree = {"a": [torch.arange(3.0), torch.tensor(math.nan)], "b": (1, "two", None, math.nan), "c": {}}
    rows = compare(tree, tree)
    assert [row.name for row in rows] == ["a/0", "a/1", "b/0", "b/1", "b/2", "b/3"]
    assert all(row.equal for row in rows)


@pytest.mark.numeric
def test_the_largest_difference_is_reported() -> None:
    row = only(torch.tensor([1.0, 10.0, -4.0]), torch.tensor([1.5, 10.0, -2.0]))
    assert (row.what, row.absolute, row.relative) == ("differs", 2.0, 0.5)
    row = only(14, 12)
    assert (row.what, row.absolute, row.relative) == ("14 and 12", 2.0, pytest.approx(1 / 7))


def test_one_bit_is_a_difference() -> None:
    one = torch.tensor([1.0, 0.0])
    assert only(one, torch.nextafter(one, one + 1)).what == "differs"
    assert only(torch.tensor(0.0), torch.tensor(-0.0)).what == "differs"
    assert same_bits(torch.tensor([math.nan]), torch.tensor([math.nan]))


def test_missing_leaves_and_other_types_are_reported() -> None:
    assert [row.what for row in compare({"a": 1}, {"b": 1})] == ["missing in B", "missing in A"]
    assert only(torch.zeros(2, 3), torch.zeros(3, 2)).what == "shapes (2, 3) and (3, 2)"
    assert only(torch.zeros(2), torch.zeros(2, dtype=torch.float64)).what == "types torch.float32 and torch.float64"
    assert only(torch.zeros(2), 0.0).what == "Tensor and float"
    assert only(True, 1).what == "bool and int"
    assert only("a", "b").what == "'a' and 'b'"


def test_measured_times_are_ignored() -> None:
    one, two = ({"callbacks": {"Monitor": {"tokens": 5, "seconds": seconds}}} for seconds in (1.0, 2.0))
    assert [row.name for row in compare(one, two)] == ["callbacks/Monitor/tokens"]
