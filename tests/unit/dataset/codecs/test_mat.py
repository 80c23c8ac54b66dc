"""Arrays of MATLAB files of version 5, written here by the specification, are read as they are."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.codecs.mat import read_mat
from pipeline.errors import DataError
from tests.unit.data_prep import valid_files as made

NUMBERS = np.arange(12.0).reshape(3, 4)
BITS = np.eye(5, 7, dtype=np.uint8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["ab", "traindata"])
def test_arrays_are_read_in_their_order(tmp_path: Path, order: str, packed: bool, name: str) -> None:
    (tmp_path / "a.mat").write_bytes(made.mat({name: [NUMBERS, BITS], "one": NUMBERS}, order, packed))
    found = read_mat(tmp_path / "a.mat")
    assert list(found) == [name, "one"]
    for array, expected in zip((*found[name], *found["one"]), (NUMBERS, BITS, NUMBERS), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MATLAB 7.3 MAT-file".ljust(600), "version 5, got version 7.3. Save it with -v7"),
        (b"x" * 600, "is not a MATLAB file of version 5"),
        (made.mat({"a": NUMBERS})[:-40], r"is damaged \(an element of \d+ bytes ends after the end\)"),
    ],
)
def test_another_file_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mat(tmp_path / "a.mat")
