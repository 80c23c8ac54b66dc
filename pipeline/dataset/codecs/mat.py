"""Reader of the numeric arrays of MATLAB files of version 5, in which the piano rolls of the literature are stored.

MathWorks, "MAT-File Format" (level 5). After a header of 128 bytes a file is a sequence of elements: a type, a size,
and the data, padded to eight bytes. Data of at most four bytes can follow the type in the same eight bytes. A matrix
consists of elements itself: flags, dimensions, a name, and the numbers in column-major order, or the matrices of a
cell array. Each variable can be compressed with zlib.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.dataset.codecs.encoding import readable
from pipeline.errors import DataError

HEADER = 128  # bytes
HDF5 = b"MATLAB 7.3"  # start of a file of version 7.3, which has another format
MATRIX, COMPRESSED, CELL = 14, 15, 1
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # by type
NUMERIC = range(6, 16)  # classes of arrays of numbers, from double to uint64
COMPLEX = 0x0800  # flag of an array with imaginary parts
LARGEST = 1 << 29  # bytes of an uncompressed variable
Variables = dict[str, list[np.ndarray | None]]
"""Arrays by variable: those of a cell array, or the only one; None for what is not an array of real numbers."""


class DataElement(NamedTuple):
    """A data element of a file."""

    kind: int
    data: memoryview


def read_mat(path: Path) -> Variables:
    """Read the variables of a file.

    Raises:
        DataError: the file cannot be read, is damaged, or has another version.
    """
    with readable(path):
        content = path.read_bytes()
    if content.startswith(HDF5):
        raise DataError(f"{path}: expected a MATLAB file of version 5, got version 7.3. Save it with -v7")
    if len(content) < HEADER or content[126:128] not in (b"IM", b"MI"):
        raise DataError(f"{path} is not a MATLAB file of version 5. Save it with -v7, or name another file")
    order = "<" if content[126:128] == b"IM" else ">"
    try:
        variables = (_variable(each, order) for each in _elements(memoryview(content)[HEADER:], order))
        return {name: values for name, values in variables if name}
    except (ValueError, struct.error, zlib.error, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Download or copy it again") from error


def _elements(data: memoryview, order: str) -> Iterator[DataElement]:
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack(order + "II", data[at : at + 8])
        if kind >> 16:  # a small element
            kind, size, begin, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            begin = at + 8
            after = begin + size + (0 if kind == COMPRESSED else -size % 8)
        if begin + size > len(data):
            raise ValueError(f"an element of {size} bytes ends after the end")
        yield DataElement(kind, data[begin : begin + size])
        at = after


def _variable(element: DataElement, order: str) -> tuple[str, list[np.ndarray | None]]:
    """Return the name and the arrays of a variable; an empty name for an element that is not a matrix."""
    if element.kind == COMPRESSED:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(element.data, LARGEST)
        if not unpacker.eof:
            raise ValueError(f"a variable is truncated, or larger than {LARGEST} bytes")
        element = next(_elements(memoryview(content), order), DataElement(0, element.data))
    if element.kind != MATRIX:
        return "", []
    flags, _, name, *parts = _elements(element.data, order)
    is_cell = flags.data[0 if order == "<" else 3] == CELL
    cells = [_numbers(part, order) for part in (parts if is_cell else [element])]
    return bytes(name.data).decode("ascii", "replace"), cells


def _numbers(element: DataElement, order: str) -> np.ndarray | None:
    """Return the array of a matrix; None if it is not one of real numbers."""
    if element.kind != MATRIX:
        return None
    flags, dimensions, _, *parts = [*_elements(element.data, order), *[DataElement(0, element.data[:0])] * 3][:5]
    if len(flags.data) < 4 or not parts or parts[0].kind not in NUMBERS:
        return None
    [found] = struct.unpack(order + "I", flags.data[:4])
    if found & 0xFF not in NUMERIC or found & COMPLEX:
        return None
    shape = np.frombuffer(dimensions.data, order + "i4").tolist()
    values = np.frombuffer(parts[0].data, order + NUMBERS[parts[0].kind])
    return values.reshape(shape, order="F")
