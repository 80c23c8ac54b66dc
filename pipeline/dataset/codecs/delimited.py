"""CSV and TSV files as batches of text, by pyarrow; values are exactly as written.

The delimiter is that of the suffix if the header has it, else the most frequent one. TSV has no quoting.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress, count, islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.codecs.encoding import Opened, open_text, readable, suffix_of
from pipeline.errors import DataError

Reject = Callable[[str, str], None]
DELIMITERS = "\t,;|"
LONGEST_HEADER = 1 << 20  # bytes
NOT_UTF8 = "not UTF-8"
FIELDS = "another number of fields than the header"


def read_batches(
    path: Path, reject: Reject, header: bool
) -> tuple[list[str], Iterator[tuple[Sequence[int], pa.RecordBatch]]]:
    """Return the names of the columns, and batches of text with the numbers of their rows.

    Args:
        path: the file.
        reject: called with `path:number` and a reason for each invalid row.
        header: whether the first row names the columns; else they are named 1, 2, ...

    Raises:
        DataError: the file cannot be read or is damaged, its header is invalid, or quotation marks are unbalanced.
    """
    with open_text(path) as file, readable(path):
        first = _first_line(file, path)
        delimiter = _delimiter(first, path)
        names = next(csv.reader([first], delimiter=delimiter, quoting=_quoting(delimiter)))
        quoted = delimiter != "\t" and (b'"' in first.encode() or any(b'"' in line for line in file))
    if not header:
        names = [str(at + 1) for at in range(len(names))]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{path}: the header has {twice[0]!r} twice. Give every column a name of its own")
    if quoted:
        _check_quotes(path, delimiter)
    return names, _parsed(path, names, delimiter, reject, header)


def _first_line(file: Opened, path: Path) -> str:
    for line in iter(lambda: file.readline(LONGEST_HEADER), b""):
        if line.strip():
            try:
                return line.decode().splitlines()[0]
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: the header is not UTF-8. Save the file as UTF-8") from error
    return ""


def _delimiter(first: str, path: Path) -> str:
    """Return the delimiter of a header: that of the suffix if it occurs, else the most frequent one."""
    usual = {".tsv": "\t", ".tab": "\t", ".csv": ","}.get(suffix_of(path), "")
    if usual and usual in first:
        return usual
    return max(DELIMITERS, key=first.count) if any(each in first for each in DELIMITERS) else usual or ","


def _quoting(delimiter: str) -> Literal[0, 3]:
    return csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL


def _check_quotes(path: Path, delimiter: str) -> None:
    """Raise DataError where a quotation mark would swallow the following rows."""
    with open_text(path) as file:
        rows = csv.reader(
            io.TextIOWrapper(file, "utf-8", errors="replace", newline=""), delimiter=delimiter, strict=True
        )
        try:
            with readable(path):
                for _ in rows:
                    pass
        except csv.Error as error:
            raise DataError(
                f"{path}:{rows.line_num}: unbalanced quotation marks ({error}). Double each mark inside a quoted "
                "value, or use a .tsv file, which has no quoting"
            ) from error


def _parsed(
    path: Path, names: list[str], delimiter: str, reject: Reject, header: bool
) -> Iterator[tuple[Sequence[int], pa.RecordBatch]]:
    from pyarrow import csv as arrow

    ragged: list[arrow.InvalidRow] = []  # since the last batch
    skipped: set[int] = set()

    def skip(row: "arrow.InvalidRow") -> str:
        ragged.append(row)
        skipped.add(row.number)
        return "skip"

    def report_ragged() -> None:
        for row in ragged:
            if row.text.strip():
                reject(f"{path}:{row.number}", FIELDS)
        ragged.clear()

    quote = False if delimiter == "\t" else '"'
    parse = arrow.ParseOptions(
        delimiter=delimiter,
        quote_char=quote,
        newlines_in_values=bool(quote),
        ignore_empty_lines=False,
        invalid_row_handler=skip,
    )
    read = arrow.ReadOptions(use_threads=False, column_names=names)
    convert = arrow.ConvertOptions(column_types={name: pa.binary() for name in names}, strings_can_be_null=False)
    numbers = (number for number in count(1) if number not in skipped)
    heading = header
    with open_text(path) as file, readable(path), arrow_errors(path):
        for batch in arrow.open_csv(file, read, parse, convert):
            report_ragged()
            rows, batch = _not_blank(list(islice(numbers, batch.num_rows)), batch)
            if heading and rows:
                heading, rows, batch = False, rows[1:], batch.slice(1)
            yield _as_text(path, rows, batch, reject)
        report_ragged()


def _not_blank(numbers: list[int], batch: pa.RecordBatch) -> tuple[list[int], pa.RecordBatch]:
    """Drop empty lines; in a table of one column they are missing values."""
    blank = pc.equal(pc.binary_length(batch.column(0)), 0)
    if batch.num_columns == 1 or not pc.any(blank).as_py():
        return numbers, batch
    for values in batch.columns[1:]:
        blank = pc.and_(blank, pc.equal(pc.binary_length(values), 0))
    kept = pc.invert(blank)
    return list(compress(numbers, kept.to_pylist())), batch.filter(kept)


def _as_text(path: Path, numbers: list[int], batch: pa.RecordBatch, reject: Reject) -> tuple[list[int], pa.RecordBatch]:
    """Decode a batch; rows that are not UTF-8 are rejected."""
    schema = pa.schema([(name, pa.string()) for name in batch.schema.names])
    try:
        return numbers, batch.cast(schema)
    except pa.ArrowInvalid:
        valid = [_is_utf8(row.values()) for row in batch.to_pylist()]
    for number, fine in zip(numbers, valid, strict=True):
        if not fine:
            reject(f"{path}:{number}", NOT_UTF8)
    return list(compress(numbers, valid)), batch.filter(pa.array(valid, pa.bool_())).cast(schema)


def _is_utf8(values: Iterable[bytes]) -> bool:
    try:
        for value in values:
            value.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """Raise a DataError for an error of pyarrow.

    Raises:
        DataError: the file is not a table.
    """
    try:
        yield
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a table ({str(error).splitlines()[0]}). Write or copy it again") from error
