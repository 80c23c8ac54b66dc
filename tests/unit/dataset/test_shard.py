"""Values of Arrow arrays as numpy arrays."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.dataset.shard import numpy_array

NAMES = ["uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_shared_not_copied(name: str) -> None:
    array = pa.array(np.arange(5).astype(name)).slice(1, 3)
    found = numpy_array(array)
    assert (found.dtype, found.tolist()) == (np.dtype(name), [1, 2, 3])
    assert found.ctypes.data == array.buffers()[1].address + found.itemsize
    assert numpy_array(array.slice(0, 0)).tolist() == []


def test_flags_texts_and_missing_values_are_what_pyarrow_returns() -> None:
    flags = pa.array([True, False, True, True]).slice(1)
    assert (numpy_array(flags).dtype, numpy_array(flags).tolist()) == (np.dtype(bool), [False, True, True])
    assert numpy_array(pa.array(["a", "b"])).tolist() == ["a", "b"]
    assert np.isnan(numpy_array(pa.array([1, None], pa.int32()))).tolist() == [False, True]
