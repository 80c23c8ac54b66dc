"""Documents of text files, plain or compressed, read in pieces with constant memory.

A document longer than a piece is divided after a newline or before a space, if it has one. An invalid record is
counted and named in the report; a file that cannot be read at all stops the preparation.
"""

import codecs
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, NamedTuple

from data_prep.sources.packed import DAMAGE, PACKINGS
from data_prep.workspace.report import Report
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


ReadDocuments = Callable[[IO[bytes], str, "Reading", Report], Iterator[Piece]]


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

    def document(self, text: str, report: Report, dropped: int = 0) -> Iterable[Piece]:
        """Return the pieces of one document, none if it is empty, and count it."""
        if not self.keep_empty and (not text or text.isspace()):
            report.empty += 1
            return ()
        report.documents += 1
        if len(text) <= PIECE:
            return (Piece(text, True, True, dropped),)
        return in_pieces(text[at : at + PIECE] for at in range(0, len(text), PIECE))


@dataclass
class Sources:
    """Files that are read one after another; `done` of their `total` bytes have been read."""

    names: list[Name]
    reading: Reading
    done: int = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(name.path.stat().st_size for name in self.names)

    def pieces(self, report: Report) -> Iterator[Piece]:
        """Yield the pieces of all documents in order.

        Raises:
            DataError: a file cannot be read or is damaged.
        """
        self.done = 0
        for shown, path in self.names:
            read, opener = _format(path)
            before = self.done
            with _readable(shown), path.open("rb") as raw, opener(raw, "rb") as file:
                for piece in read(file, shown, self.reading, report):
                    self.done = before + raw.tell()
                    yield piece
            self.done = before + path.stat().st_size


def find(source: str) -> list[Name]:
    """Return the file itself, or the files with a supported extension below a directory, sorted.

    Raises:
        DataError: the source does not exist, or no file has a supported extension.
    """
    path = Path(source)
    with _readable(source):
        if path.is_file():
            _format(path)
            return [Name(source, path)]
        if not path.exists():
            raise DataError(f"source {source} does not exist. Name a file, a directory, '-', hub:NAME or builtin")
        below = [Path(root) / file for root, _, files in os.walk(path, onerror=_throw) for file in files]
    found = sorted(file for file in below if not file.name.startswith(".") and _known(file))
    if not found:
        raise DataError(
            f"directory {source} has {len(below)} files, but none with an extension {_extensions()}. "
            "Rename the files or name another source"
        )
    return [Name(str(file), file) for file in found]


def _throw(error: OSError) -> None:
    raise error


def _extensions() -> str:
    return f"{', '.join(FORMATS)} (optionally with .gz or .xz)"


def _known(path: Path) -> bool:
    inner = path.with_suffix("") if path.suffix in PACKINGS else path
    return inner.suffix in FORMATS


def _format(path: Path) -> tuple[ReadDocuments, Callable[..., AbstractContextManager[IO[bytes]]]]:
    if not _known(path):
        raise DataError(f"{path}: unknown file extension '{path.suffix}'. Supported are {_extensions()}")
    inner = path.with_suffix("") if path.suffix in PACKINGS else path
    return FORMATS[inner.suffix], PACKINGS.get(path.suffix, _plain)


def _plain(raw: IO[bytes], mode: str) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(raw)


@contextmanager
def _readable(shown: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise DataError(f"{shown} is damaged ({error}). Download or copy it again") from error
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror or error}") from error


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


# ---------------------------------------------------------------------- text files


def whole(file: IO[bytes], name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read a text file as one document."""
    try:
        blank = all(not block or block.isspace() for block in _decoded(file))
        for _ in _decoded(file):
            pass
    except UnicodeDecodeError as error:
        return report.reject(name, _undecodable(error))
    if blank and not reading.keep_empty:
        report.empty += 1
        return
    report.documents += 1
    yield from in_pieces(_decoded(file))


def _decoded(file: IO[bytes]) -> Iterator[str]:
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")()
    while block := file.read(PIECE):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def lines(file: IO[bytes], name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read each line of a text file as a document; `<eos>` replaces its line ending."""
    for number, line in enumerate(file, 1):
        bare = line.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = bare.decode()
        except UnicodeDecodeError as error:
            report.reject(f"{name}:{number}", _undecodable(error))
            continue
        yield from reading.document(text, report, len(line) - len(bare))


def paragraphs(file: IO[bytes], name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read each block of lines between blank lines as a document."""
    number = 1
    for blank, group in groupby(file, key=bytes.isspace):
        block = list(group)
        if not blank:
            try:
                yield from reading.document(b"".join(block).decode().rstrip("\r\n"), report, 2)
            except UnicodeDecodeError as error:
                report.reject(f"{name}:{number}", _undecodable(error))
        number += len(block)


def _undecodable(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 ({error.reason})"


# ---------------------------------------------------------------------- files of records


def json_lines(file: IO[bytes], name: str, reading: Reading, report: Report) -> Iterator[Piece]:
    """Read the documents of a JSON Lines file, one per line, from one field."""
    for number, line in enumerate(file, 1):
        if line.isspace():
            report.empty += 1
            continue
        try:
            text = json.loads(line)[reading.field]
            text.encode()
        except UnicodeError:
            report.reject(f"{name}:{number}", "not UTF-8")
        except ValueError:
            report.reject(f"{name}:{number}", "invalid JSON")
        except (KeyError, TypeError, AttributeError, IndexError):
            report.reject(f"{name}:{number}", f"no text in field {reading.field!r}")
        else:
            yield from reading.document(text, report)


def parquet(file: IO[bytes], name: str, reading: Reading, report: Report) -> Iterator[Piece]:
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
                yield from reading.document(text, report)
            else:
                report.reject(f"{name}:{number}", f"no text in column {reading.field!r}")
    except (pa.ArrowException, ValueError, OverflowError) as error:  # also of names and times
        raise DataError(f"{name} is damaged ({str(error).splitlines()[0]}). Download or copy it again") from error


DOCUMENTS: dict[str, ReadDocuments] = {"file": whole, "line": lines, "paragraph": paragraphs}
FORMATS: dict[str, ReadDocuments] = {
    ".txt": lambda file, name, reading, report: reading.text_documents(file, name, reading, report),
    ".tokens": lambda file, name, reading, report: reading.text_documents(file, name, reading, report),
    ".jsonl": json_lines,
    ".parquet": parquet,
}
