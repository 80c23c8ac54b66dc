"""Tables of series: the roles of their columns, and reading them with or without a header."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.codecs.encoding import open_text, readable
from pipeline.dataset.codecs.numbers import MISSING
from pipeline.dataset.codecs.table import kind_of, read_table
from pipeline.errors import DataError

LONGEST_HEADER = 1 << 16  # bytes
VALUE = re.compile(r"[-+]?[\d.,:/+\-]*\d[\d.,:/+\-]*([TeE][\d:.+\-]+)?Z?")  # a number, a date or a time of day
DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?([T ].*)?|\d{1,4}[/.]\d{1,2}[/.]\d{1,4}")
FEW = 4  # columns that may be named 0, 1, 2, 3


@dataclass(frozen=True)
class TableLayout:
    """The roles of the columns of a table.

    Args:
        time: column of stamps; "" where the rows of a series are counted.
        id: columns that together name a series; none in a wide table.
        targets: columns to predict; empty if each row is a series.
        known: covariates that are known over the horizon.
        calendar: add the position in the day, week and year as known covariates.
        in_rows: each row is a series: its id, then its values.
        header: the first line names the columns.
        decimal: decimal mark, `point` or `comma`; "" if all numbers are plain.
        unused: other columns.
    """

    time: str
    id: tuple[str, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...]
    calendar: bool
    in_rows: bool = False
    header: bool = True
    decimal: str = ""
    unused: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the entries of a manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "TableLayout":
        """Return the layout that a manifest describes."""
        found: dict[str, Any] = {each.name: entry[each.name] for each in fields(cls) if each.name in entry}
        found |= {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
        return cls(**found)

    def check_columns(self, names: Sequence[str], source: str) -> None:
        """Check that a table has the columns of the prepared one.

        Raises:
            DataError: columns are missing or unknown.
        """
        required = [name for name in (self.time, *self.id, *self.targets, *self.known) if name]
        missing = [name for name in required if name not in names]
        allowed = {*required, *(self.unused or ())}
        other = [name for name in names if name not in allowed and not self.in_rows and self.unused is not None]
        if missing or other:
            number, kind = ("without", missing) if missing else ("with the unknown", other)
            raise DataError(
                f"{source}: expected the columns {', '.join(required)} as in training, got a table {number} "
                f"{', '.join(kind[:5])}. Give a table with the columns of the prepared one"
            )


def read_series_table(paths: Sequence[Path], *, header: bool = True) -> pa.Table:
    """Read and concatenate the rows of all files; fields may be separated by blanks.

    Raises:
        DataError: a file is not a table, has no header, or its columns differ from those of the other files.
    """
    if header:
        for path in paths:
            _check_header(path)
    table = read_table(paths, header=header)
    if table.num_columns != 1 or not pa.types.is_string(table.schema.types[0]):
        return table
    lines = table.column(0).filter(pc.not_equal(table.column(0), ""))
    parts = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))
    names = table.column_names[0].split() if header else parts[0].as_py() if len(parts) else []
    counts = pc.list_value_length(parts)
    if len(names) < 2 or not pc.any(pc.greater(counts, 1)).as_py():
        return table
    if other := [row for row, count in enumerate(counts.to_pylist(), 1) if count != len(names)]:
        raise DataError(
            f"{paths[0]}: expected {len(names)} fields separated by blanks in each row, got {counts[other[0] - 1]} in "
            f"row {other[0]}. Separate the fields by commas"
        )
    names = names if header else [str(at + 1) for at in range(len(names))]
    return pa.table({name: pc.list_element(parts, at) for at, name in enumerate(names)})


def _check_header(path: Path) -> None:
    """Raise DataError if the first line of a file has values instead of names."""
    if kind_of(path) != "delimited":
        return
    with open_text(path) as file, readable(path):
        first = file.readline(LONGEST_HEADER).decode(errors="replace").strip()
    names = [name.strip('"') for name in re.split(r"[\t,;|]|\s+", first)]
    counted = len(names) >= FEW and names in ([str(at + start) for at in range(len(names))] for start in (0, 1))
    values = [name for name in names if name.lower() in MISSING or VALUE.fullmatch(name)]
    dates = [name for name in names[:3] if DATE.fullmatch(name)]
    if dates or (len(values) == len(names) and not counted):
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        more = "" if dates else " and, if no column has stamps, --no-time"
        raise DataError(
            f"{path}: expected a first line with the names of the columns, got {shown}. Add it, or prepare with "
            f"--no-header{more}"
        )
