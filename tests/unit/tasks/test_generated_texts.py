"""Evenly spaced rows of a split are scored in a validation."""

import itertools

import pytest

from pipeline.tasks.generated_texts import is_scored


@pytest.mark.parametrize(("rows", "limit"), [(10, 4), (29, 20), (7, 7), (5, 9), (1000, 256), (3, 0)])
def test_as_many_rows_as_the_limit_are_drawn_at_equal_distances(rows: int, limit: int) -> None:
    drawn = [row for row in range(rows) if is_scored(row, rows, limit)]
    assert len(drawn) == min(rows, limit)
    apart = {after - before for before, after in itertools.pairwise(drawn)}
    assert apart <= {rows // max(limit, 1), rows // max(limit, 1) + 1, 1}
    assert not drawn or drawn[-1] == rows - 1
