"""Read columns of tables as numbers: native ones, and texts exactly as they are written in CSV.

A text is a number, a missing value, or neither. A comma, or points between groups of three digits, are never
interpreted without the decimal mark of the table.

Legend: R rows of a table.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

MISSING = ("", "na", "n/a", "#n/a", "#na", "<na>", "nan", "null", "none", "-")  # in lower case
PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$"
INFINITE = r"^[+-]?inf(inity)?$"
SEPARATED = r"^[^\w\s]?[+-]?[^\w\s]?\d[\d.,' _\x{a0}\x{202f}]*(e[+-]?\d+)?[%\s]*$"  # digits with any separators
GROUPS = r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$"  # 1.234: a fraction, or thousands
MARKS = {"point": (".", ","), "comma": (",", ".")}  # decimal mark and separator of thousands, beside blanks and '
PROBED = 1000  # rows that are examined before all rows are


class NumberColumn(NamedTuple):
    """A column of numbers."""

    values: Float64[np.ndarray, " R"]
    """NaN where a value is missing or is not a number."""
    bad: Bool[np.ndarray, " R"]
    """True at a value that is neither a number nor missing."""
    separated: Bool[np.ndarray, " R"]
    """True at those that look like numbers with separators."""

    @property
    def share(self) -> float:
        """Fraction of the values, without the missing ones, that are numbers or look like numbers; NaN without any."""
        there, wrong = ~np.isnan(self.values) | self.bad, self.bad & ~self.separated
        return 1 - wrong.sum() / there.sum() if there.any() else np.nan


def numbers_of(column: "pa.ChunkedArray | pa.Array", decimal: str = "") -> NumberColumn:
    """Read a column as numbers.

    Args:
        column: numbers, truth values or texts. Values of other types are bad.
        decimal: `point`, `comma`, or "" where it is not known.
    """
    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    nothing = np.zeros(len(column), bool)
    if is_numeric(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return NumberColumn(_floats(column), nothing, nothing)
    if not is_text(kind):
        return NumberColumn(np.full(len(column), np.nan), _truths(column.is_valid()), nothing)
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    texts = pc.if_else(pc.is_in(texts, pa.array(MISSING, texts.type)), None, texts)
    if not decimal and not _may_be_thousands(texts):
        for native in (pa.float64(), pa.bool_()):
            try:
                return NumberColumn(_floats(texts.cast(native)), nothing, nothing)
            except pa.ArrowInvalid:
                continue
    return _parsed(texts, decimal)


def is_numeric(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _parsed(texts: pa.ChunkedArray, decimal: str) -> NumberColumn:
    plain, infinite = texts, _matches(texts, INFINITE)
    if decimal:
        mark, group = MARKS[decimal]
        groups = rf"[{group}' \x{{a0}}\x{{202f}}]"
        pattern = rf"^[+-]?((\d{{1,3}}({groups}\d{{3}})+|\d+)(\{mark}\d*)?|\{mark}\d+)(e[+-]?\d+)?$"
        fine = pc.or_(_matches(texts, pattern), infinite)
        plain = pc.replace_substring(pc.replace_substring_regex(texts, groups, ""), mark, ".")
    else:
        fine = pc.or_(_matches(texts, PLAIN), infinite)
        if _may_be_thousands(texts):
            fine = pc.and_not(fine, pc.match_substring(texts, "."))
    bad = pc.and_not(texts.is_valid(), fine)
    values = _floats(pc.if_else(fine, plain, None))
    return NumberColumn(values, _truths(bad), _truths(pc.and_(bad, _matches(texts, SEPARATED))))


def _may_be_thousands(texts: pa.ChunkedArray) -> bool:
    """Return whether all texts with a point can be thousands, beside shorter ones without: 987 and 1.012."""
    for part in (texts[:PROBED], texts):
        dotted = pc.match_substring(part, ".")
        if pc.any(pc.and_not(dotted, _matches(part, GROUPS))).as_py():
            return False
    short = _matches(texts, r"^[+-]?[1-9]\d{0,2}$")
    return bool(pc.any(dotted).as_py() and pc.any(short).as_py())


def _matches(texts: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False)


def _floats(column: pa.ChunkedArray) -> Float64[np.ndarray, " R"]:
    found: Float64[np.ndarray, " R"] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def _truths(column: pa.ChunkedArray) -> Bool[np.ndarray, " R"]:
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)
