"""Documents of text files, plain or compressed, read in pieces with constant memory.

A document longer than a piece is divided after a newline or before a space, if it has one. An invalid record is
counted and named in the report; a file that cannot be read at all stops the preparation.
"""

import codecs
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.characters import oddity
from data_prep.sources.walk import walk
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import (
    HEAD,
    NOT_UTF8,
    NUL,
    PACKINGS,
    Opened,
    check_end,
    readable,
    suffix_of,
    text_start,
)
from pipeline.errors import DataError

PIECE = 1 << 14  # characters: tokenizers slow down on longer texts


class Piece(NamedTuple):
    """A document or a part of one."""

    text: str
    starts: bool
    """Whether it is the first piece of its document."""
    ends: bool
    """Whether it is the last piece of its document."""
    dropped: int = 0
    """Bytes of the line ending after it, which `<eos>` replaces."""


class Name(NamedTuple):
    """A source file: its name in reports, and its path."""

    shown: str
    path: Path


ReadDocuments = Callable[[Opened, str, "Reading", Report], Iterator[Piece]]


@dataclass(frozen=True)
class Reading:
    """Settings for finding the documents of a file.

    Args:
        text_documents: reader of text files: `whole`, `lines` or `paragraphs`.
        field: the field of a JSON or Parquet record that holds the text.
        keep_empty: keep empty documents.
    """

    text_documents: ReadDocuments
    field: str = "text"
    keep_empty: bool = False

    def document(self, text: str, name: str, number: int, report: Report, dropped: int = 0) -> Iterable[Piece]:
        """Return the pieces of one document, none if it is empty or invalid, and count it.

        Args:
            text: the document.
            name: its file.
            number: its line or record in the file, from 1.
            report: counts it.
            dropped: bytes of the line ending after it.
        """
        if not self.keep_empty and (not text or text.isspace()):
            report.empty += 1
            return ()
        if "\0" in text:
            report.reject(f"{name}:{number}", NUL)
            return ()
        if unusual := oddity(text):
            report.note(f"{name}:{number}", unusual)
        report.documents += 1
        if len(text) <= PIECE:
            return (Piece(text, True, True, dropped),)
        return in_pieces(text[at : at + PIECE] for at in range(0, len(text), PIECE))


@dataclass
class Sources:
    """Files that are read one after another; `done` of their `total` bytes have been read."""

    names: list[Name]
    reading: Reading
    total: int = field(init=False)
    firsts: list[tuple[int, str]] = field(init=False, default_factory=list)
    """Number of documents before each file, and its name, in the current pass."""
    _before: int = field(init=False, default=0)
    _raw: BufferedReader | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.total = sum(name.path.stat().st_size for name in self.names)

    @property
    def done(self) -> int:
        """Bytes read in this pass."""
        return self._before + (self._raw.tell() if self._raw and not self._raw.closed else 0)

    def pieces(self, report: Report) -> Iterator[Piece]:
        """Yield the pieces of all documents in order.

        Raises:
            DataError: a file cannot be read or is damaged.
        """
        self._before, self.firsts, earlier = 0, [], report.documents
        for shown, path in self.names:
            self.firsts.append((report.documents - earlier, shown))
            with readable(shown), path.open("rb") as self._raw, _unpacked(self._raw, path) as file:
                yield from FORMATS[suffix_of(path)](file, shown, self.reading, report)
            self._before += path.stat().st_size

    def place(self, document: int) -> str:
        """Return the file of a document of the last pass, and its number among the documents of that file."""
        first, shown = self.firsts[bisect_right(self.firsts, document, key=lambda each: each[0]) - 1]
        return f"{shown}, document {document - first + 1}"


def _unpacked(raw: BufferedReader, path: Path) -> Opened:
    if (suffix := path.suffix.lower()) not in PACKINGS:
        return raw
    if suffix == ".xz":
        check_end(path)
    unpacked: Opened = PACKINGS[suffix](raw, "rb")
    return unpacked


def find(source: str, report: Report) -> list[Name]:
    """Return the file itself, or the files with a supported suffix below a directory, sorted.

    Raises:
        DataError: the source does not exist, or no file has a supported suffix.
    """
    path, known = Path(source), f"{', '.join(FORMATS)} (optionally with .gz or .xz)"
    if path.is_file():
        if suffix_of(path) not in FORMATS:
            raise DataError(f"{path}: unknown file extension '{path.suffix}'. Supported are {known}")
        return [Name(source, path)]
    if not path.exists():
        raise DataError(f"source {source} does not exist. Name a file, a directory, '-', hub:NAME or builtin")
    if not path.is_dir():
        raise DataError(f"source {source}: expected a file or a directory, got a pipe or a device. Use '-' to read one")
    counted = Report()
    found = walk(path, FORMATS, counted)
    report.add(counted)
    if not found:
        raise DataError(
            f"directory {source} has {counted.left_out.total()} files, but none with an extension {known}. "
            "Rename the files or name another source"
        )
    return [Name(str(file), file) for file in found]


def in_pieces(blocks: Iterable[str]) -> Iterator[Piece]:
    """Divide one document, given in blocks of any size, into pieces of at most PIECE characters."""
    text, starts = "", True
    for block in blocks:
        text += block
        while len(text) > PIECE:
            at = text.rfind("\n", 0, PIECE) + 1 or max(text.rfind(" ", 0, PIECE), 0) or PIECE
            yield Piece(text[:at], starts, False)
            text, starts = text[at:], False
    yield Piece(text, starts, True)


def whole(file: Opened, name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read a text file as one document."""
    start = _start(file, name)
    blank, unusual = True, None
    try:
        for block in _decoded(file, start):
            if "\0" in block:
                return report.reject(name, NUL)
            blank = blank and (not block or block.isspace())
            unusual = unusual or oddity(block)
    except UnicodeDecodeError as error:
        return report.reject(name, NOT_UTF8, error.reason)
    if blank and not reading.keep_empty:
        report.empty += 1
        return
    if unusual:
        report.note(name, unusual)
    report.documents += 1
    yield from in_pieces(_decoded(file, start))


def _start(file: Opened, name: str) -> int:
    """Skip the byte order mark; return its length."""
    start = text_start(file.peek(HEAD)[:HEAD], name)
    file.read(start)
    return start


def _decoded(file: Opened, start: int) -> Iterator[str]:
    file.seek(start)
    decoder = codecs.getincrementaldecoder("utf-8")()
    while block := file.read(PIECE):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def lines(file: Opened, name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read each line of a text file as a document; `<eos>` replaces its line ending."""
    for number, line in enumerate(_lines(file, name), 1):
        bare = line.rstrip(b"\r\n")
        try:
            text = bare.decode()
        except UnicodeDecodeError as error:
            report.reject(f"{name}:{number}", NOT_UTF8, error.reason)
            continue
        yield from reading.document(text, name, number, report, len(line) - len(bare))


def _lines(file: Opened, name: str) -> Iterator[bytes]:
    """Yield the lines with their endings: newline, carriage return with newline, or carriage return."""
    _start(file, name)
    for line in file:
        if b"\r" in line:
            yield from line.splitlines(keepends=True)  # bytes are divided at no other characters
        else:
            yield line


def paragraphs(file: Opened, name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read each block of lines between blank lines as a document."""
    number = 1
    for blank, group in groupby(_lines(file, name), key=bytes.isspace):
        block = list(group)
        if not blank:
            try:
                yield from reading.document(b"".join(block).decode().rstrip("\r\n"), name, number, report, 2)
            except UnicodeDecodeError as error:
                report.reject(f"{name}:{number}", NOT_UTF8, error.reason)
        number += len(block)


def json_lines(file: Opened, name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read the documents of a JSON Lines file, one per line, from one field."""
    _start(file, name)
    for number, line in enumerate(file, 1):
        if line.isspace():
            report.empty += 1
            continue
        try:
            text = json.loads(line)[reading.field]
            text.encode()
        except UnicodeError:
            report.reject(f"{name}:{number}", NOT_UTF8)
        except (ValueError, RecursionError):
            report.reject(f"{name}:{number}", "invalid JSON")
        except (KeyError, TypeError, AttributeError, IndexError):
            report.reject(f"{name}:{number}", f"no text in field {reading.field!r}")
        else:
            yield from reading.document(text, name, number, report)


def parquet(file: Opened, name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read the documents of a Parquet file, one per row, from one column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        if reading.field not in (columns := table.schema_arrow.names):
            raise DataError(f"--field={reading.field}: expected a column of {name} ({', '.join(columns)}). Choose one")
        batches = table.iter_batches(batch_size=256, columns=[reading.field])
        for number, text in enumerate((text for batch in batches for text in batch.column(0).to_pylist()), 1):
            if isinstance(text, str):
                yield from reading.document(text, name, number, report)
            else:
                report.reject(f"{name}:{number}", f"no text in column {reading.field!r}")
    except (pa.ArrowException, ValueError, OverflowError) as error:  # also of names and times
        raise DataError(f"{name} is damaged ({str(error).splitlines()[0]}). Download or copy it again") from error


DOCUMENTS: dict[str, ReadDocuments] = {"file": whole, "line": lines, "paragraph": paragraphs}
FORMATS: dict[str, ReadDocuments] = {
    **dict.fromkeys(
        (".txt", ".text", ".md", ".tokens"),
        lambda file, name, reading, report: reading.text_documents(file, name, reading, report),
    ),
    ".jsonl": json_lines,
    ".parquet": parquet,
}
