"""Read tables of measurements from CSV, plain or compressed, and from Parquet."""

import gzip
import io
import lzma
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.errors import DataError


def read_table(paths: Sequence[Path]) -> pa.Table:
    """Read and concatenate the rows of all files.

    Raises:
        DataError: a file is missing or not a table, or columns differ; the message names the file.
    """
    tables = [_read(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table.column_names != tables[0].column_names:
            raise DataError(
                f"{path}: expected the columns {', '.join(tables[0].column_names)} of {paths[0]}, got "
                f"{', '.join(table.column_names)}. Use files with the same columns."
            )
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{', '.join(map(str, paths))} cannot be concatenated: {error}. Use files with the same types of columns."
        ) from error


def column(table: pa.Table, name: str, option: str) -> pa.ChunkedArray:
    """Return the column `name` of a table.

    Raises:
        DataError: the column does not exist; the message lists the existing ones.
    """
    if name not in table.column_names:
        raise DataError(f"{option} {name}: column not found. Choose among {', '.join(table.column_names)}.")
    return table.column(name)


def is_number(table: pa.Table, name: str) -> bool:
    """Return whether a column is numeric."""
    kind = table.column(name).type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _read(path: Path) -> pa.Table:
    from pyarrow import csv, parquet

    try:
        if path.suffix == ".parquet":
            return parquet.read_table(path)
        with _open(path) as file:
            return csv.read_csv(file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    except (pa.ArrowInvalid, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is not a table ({error}). Use a .csv file with a header line, or a .parquet file."
        ) from error


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return lzma.open(path, "rb") if path.suffix == ".xz" else path.open("rb")
