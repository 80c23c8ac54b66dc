"""CSV and TSV files as batches of text, by pyarrow; values are exactly as written.

The delimiter is one of the header that divides the first rows into equal numbers of fields. TSV has no quoting.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import chain, compress, count, filterfalse, islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.codecs.encoding import NOT_UTF8, Opened, open_text, readable, suffix_of
from pipeline.errors import DataError

Reject = Callable[[str, str], None]
DELIMITERS = "\t,;|"
LONGEST_HEADER = 1 << 20  # bytes
EXAMINED = 10  # rows after the header that determine the delimiter
FIELDS = "another number of fields than the header"
SUBSTITUTE = "\x1a"  # the control character that replaces a byte that is not UTF-8


class _Utf8:
    """A file for pyarrow in which bytes that are not UTF-8 are replaced: pyarrow reports no row that has them.

    Args:
        file: the opened file.
    """

    closed = False

    def __init__(self, file: Opened) -> None:
        self.file, self.decoder, self.replaced = file, codecs.getincrementaldecoder("utf-8")(), False

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end."""
        while block := self.file.read(max(1, size - 4)):  # at most 3 bytes of the block before are pending
            if block.isascii() and not self.decoder.getstate()[0]:
                return block
            if text := self._decode(block):
                return text.encode()
        return self._decode(b"", final=True).encode()

    def _decode(self, block: bytes, final: bool = False) -> str:
        try:
            return self.decoder.decode(block, final)
        except UnicodeDecodeError:
            self.replaced, self.decoder.errors = True, "substitute"
            return self.decoder.decode(block, final)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return SUBSTITUTE, error.start + 1


codecs.register_error("substitute", _substitute)


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
        following = list(islice(file, EXAMINED))
        rows = b"".join(following).decode(errors="replace").splitlines()
        try:
            delimiter = _delimiter([first, *rows], path)
            [names] = _divided([first], delimiter)
        except csv.Error as error:
            raise DataError(f"{path}: the first rows cannot be divided ({error}). Write the table again") from error
        names = [name.strip() for name in names]
        quoted = delimiter != "\t" and (b'"' in first.encode() or any(b'"' in line for line in chain(following, file)))
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


def _delimiter(lines: list[str], path: Path) -> str:
    """Return the delimiter of the first line: one that divides all lines equally, else that of the suffix if it occurs.

    A semicolon is preferred to a comma, which also divides names with a comma and numbers with a decimal comma.
    """
    first = lines[0]
    usual = {".tsv": "\t", ".tab": "\t", ".csv": ","}.get(suffix_of(path), "")
    if "\t" in first and usual != ",":
        return "\t"  # even if it is rarer than the commas of a text
    rows = [line for line in lines if line.strip()]
    equal = (each for each in "\t;,|" if each in first and len({len(row) for row in _divided(rows, each)}) == 1)
    if len(rows) > 1 and (found := next(equal, None)):
        return found
    if usual and usual in first:
        return usual
    return max(DELIMITERS, key=first.count) if any(each in first for each in DELIMITERS) else usual or ","


def _divided(lines: list[str], delimiter: str) -> list[list[str]]:
    return list(csv.reader(lines, delimiter=delimiter, quoting=_quoting(delimiter)))


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
    convert = arrow.ConvertOptions(column_types={name: pa.string() for name in names}, strings_can_be_null=False)
    numbers = filterfalse(skipped.__contains__, count(1))
    heading = header
    with open_text(path) as opened, readable(path), arrow_errors(path):
        file = _Utf8(opened)
        for batch in arrow.open_csv(file, read, parse, convert):
            report_ragged()
            rows, batch = _not_blank(list(islice(numbers, batch.num_rows)), batch)
            if heading and rows:
                heading, rows, batch = False, rows[1:], batch.slice(1)
            yield _decodable(path, rows, batch, reject) if file.replaced else (rows, batch)
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


def _decodable(
    path: Path, numbers: list[int], batch: pa.RecordBatch, reject: Reject
) -> tuple[list[int], pa.RecordBatch]:
    """Reject the rows in which bytes have been replaced."""
    replaced = reduce(pc.or_, (pc.match_substring(values, SUBSTITUTE) for values in batch.columns))
    for number in compress(numbers, replaced.to_pylist()):
        reject(f"{path}:{number}", NOT_UTF8)
    kept = pc.invert(replaced)
    return list(compress(numbers, kept.to_pylist())), batch.filter(kept)


@contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """Raise a DataError for an error of pyarrow.

    Raises:
        DataError: the file is not a table.
    """
    try:
        yield
    except (pa.ArrowException, ValueError, OverflowError) as error:  # also of names and times in Parquet
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is not a table ({first}). Write or copy it again") from error
