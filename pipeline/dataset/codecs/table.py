"""Tables and records from CSV, TSV, JSON lines, JSON and Parquet files, plain or compressed.

The format is recognised by the content where the suffix is misleading. Values of CSV and TSV are text, exactly as
written. TSV has no quoting. A row that cannot be read is passed to a function `reject(name, reason)`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.dataset.codecs.delimited import Reject, arrow_errors, read_batches
from pipeline.dataset.codecs.encoding import NOT_UTF8, NUL, open_packed, open_text, readable, suffix_of
from pipeline.errors import DataError

Record = dict[str, object]


def read_records(path: Path, reject: Reject, *, header: bool = True) -> Iterator[tuple[int, Record]]:
    """Yield the number, from 1, and the fields of each row of a table, or of each object of a JSON file.

    Args:
        path: a CSV, TSV, JSON lines, JSON or Parquet file.
        reject: called with `path:number` and a reason for each invalid row.
        header: whether the first row of a CSV or TSV file names its columns; else they are named 1, 2, ...

    Raises:
        DataError: the file cannot be read, is damaged, or has an invalid header or unbalanced quotation marks.
    """
    for number, record in _READERS[kind_of(path)](path, reject, header):
        if any(isinstance(value, str) and "\0" in value for value in record.values()):
            reject(f"{path}:{number}", NUL)
        else:
            yield number, record


def read_table(paths: Sequence[Path], reject: Reject | None = None, *, header: bool = True) -> pa.Table:
    """Read and concatenate the rows of all files; columns of CSV and TSV files are text.

    Args:
        paths: the files.
        reject: see `read_records`; None raises an error at the first invalid row.
        header: see `read_records`.

    Raises:
        DataError: a file is missing or not a table, or columns differ; the message names the file.
    """
    tables = [_table(path, reject or _refuse, header) for path in paths]
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


def distinct_texts(column: "pa.ChunkedArray | pa.Array") -> tuple[list[str], np.ndarray]:
    """Return the different values of a column as texts, and the place of each row among them; "" where it is null."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = whole if pa.types.is_dictionary(whole.type) else whole.dictionary_encode()
    texts = ["" if value is None else str(value) for value in coded.dictionary.to_pylist()]
    return [*texts, ""], coded.indices.fill_null(len(texts)).to_numpy().astype(np.int64)


def kind_of(path: Path) -> str:
    """Return `parquet`, `json`, `json lines` or `delimited`, by the first bytes of a file.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    with open_packed(path) as file, readable(path):
        if suffix_of(path) == ".parquet" or file.peek(4)[:4] == b"PAR1":
            return "parquet"
    with open_text(path) as file, readable(path):
        first = next((line for line in file if line.strip()), b"").strip()
    if not first:
        raise DataError(f"{path} is empty. Name a table with a header line, or a file of JSON records")
    if first.startswith(b"[") and suffix_of(path) not in (".csv", ".tsv"):
        return "json"
    if not first.startswith(b"{"):
        return "json lines" if suffix_of(path) == ".jsonl" else "delimited"
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return "json lines" if suffix_of(path) == ".jsonl" else "json"
    return "json lines"


def _refuse(name: str, reason: str) -> None:
    raise DataError(f"{name}: {reason}. Correct or delete this row")


def _table(path: Path, reject: Reject, header: bool) -> pa.Table:
    kind = kind_of(path)
    if kind == "delimited":
        names, batches = read_batches(path, reject, header)
        schema = pa.schema([(name, pa.string()) for name in names])
        table = pa.Table.from_batches([batch for _, batch in batches], schema)
        if len(names) > 1:
            return table
        written = len("".join("x" if value else " " for value in table.column(0).to_pylist()).rstrip())
        return table.slice(0, written)  # without the empty lines at the end
    if kind == "parquet":
        from pyarrow import parquet

        with open_packed(path) as file, readable(path), arrow_errors(path):
            return parquet.read_table(file)
    try:
        return pa.Table.from_pylist([record for _, record in read_records(path, reject)])
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a table ({error}). Give every record the same fields") from error


def _of_delimited(path: Path, reject: Reject, header: bool) -> Iterator[tuple[int, Record]]:
    _, batches = read_batches(path, reject, header)
    for numbers, batch in batches:
        yield from zip(numbers, batch.to_pylist(), strict=True)


def _of_json_lines(path: Path, reject: Reject, header: bool) -> Iterator[tuple[int, Record]]:
    with open_text(path) as file, readable(path):
        for number, line in enumerate(file, 1):
            if line.strip():
                yield from _objects(path, number, line, reject)


def _objects(path: Path, number: int, line: bytes, reject: Reject) -> Iterator[tuple[int, Record]]:
    try:
        record = json.loads(line.decode())
        if b"\\u" in line:
            json.dumps(record, ensure_ascii=False).encode()  # half of a surrogate pair is not a character
    except UnicodeError:
        reject(f"{path}:{number}", NOT_UTF8)
    except (ValueError, RecursionError):
        reject(f"{path}:{number}", "invalid JSON")
    else:
        if isinstance(record, dict):
            yield number, record
        else:
            reject(f"{path}:{number}", "not a JSON object")


def _of_json(path: Path, reject: Reject, header: bool) -> Iterator[tuple[int, Record]]:
    with open_text(path) as file, readable(path):
        try:
            found = json.loads(file.read().decode())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not valid JSON ({error}). Write or copy it again") from error
    lists = [found] if isinstance(found, list) else [value for value in found.values() if isinstance(value, list)]
    if len(lists) != 1:
        raise DataError(f"{path}: expected a list of JSON objects, or one object per line, got {len(lists)} lists")
    for number, record in enumerate(lists[0], 1):
        if isinstance(record, dict):
            yield number, record
        else:
            reject(f"{path}:{number}", "not a JSON object")


def _of_parquet(path: Path, reject: Reject, header: bool) -> Iterator[tuple[int, Record]]:
    from pyarrow import parquet

    with open_packed(path) as file, readable(path), arrow_errors(path):
        batches = parquet.ParquetFile(file).iter_batches(1024)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)


_READERS: dict[str, Callable[[Path, Reject, bool], Iterator[tuple[int, Record]]]] = {
    "delimited": _of_delimited,
    "json lines": _of_json_lines,
    "json": _of_json,
    "parquet": _of_parquet,
}
