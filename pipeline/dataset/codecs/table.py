"""A table of measurements in a file: CSV, plain or packed, or Parquet; its columns by name."""

import gzip
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import DataError

PACKINGS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}


def read_table(paths: Sequence[Path]) -> Any:
    """The rows of all files, one under the other, as an Arrow table.

    Raises:
        DataError: a file is missing or no table, or they have different columns; the message names it.
    """
    tables = [_read(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table.column_names != tables[0].column_names:
            raise DataError(
                f"{path} has the columns {', '.join(table.column_names)}, {paths[0]} has "
                f"{', '.join(tables[0].column_names)}: give files of one layout"
            )
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise DataError(f"{', '.join(map(str, paths))} do not fit together: {error}") from error


def column(table: Any, name: str, option: str) -> Any:
    """The column `name` of a table.

    Raises:
        DataError: there is none; the message names those that there are.
    """
    if name not in table.column_names:
        raise DataError(f"{option} {name}: there is no such column, but {', '.join(table.column_names)}")
    return table.column(name)


def is_number(table: Any, name: str) -> bool:
    """Whether a column holds numbers."""
    kind = table.column(name).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _read(path: Path) -> Any:
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path)
        with PACKINGS.get(path.suffix, open)(path, "rb") as file:
            return csv.read_csv(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowInvalid, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is no table ({error}); give a .csv with a line of names first, or a .parquet"
        ) from error
