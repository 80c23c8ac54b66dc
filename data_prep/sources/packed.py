"""Files, plain or compressed with gzip or xz, and their lines of text."""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_prep.workspace.report import Report
from pipeline.errors import DataError

PACKINGS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def open_packed(path: Path) -> IO[bytes]:
    """Open a plain or compressed file and return its uncompressed bytes.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        opened: IO[bytes] = PACKINGS.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return opened


def text_lines(path: Path, report: Report) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the text of each line; the text is None if the line is not UTF-8, which is reported.

    Raises:
        DataError: the file cannot be read or is damaged.
    """
    with open_packed(path) as file:
        try:
            for number, line in enumerate(file, 1):
                name = f"{path}:{number}"
                try:
                    yield name, line.decode().rstrip("\r\n")
                except UnicodeDecodeError:
                    report.reject(name, "not UTF-8")
                    yield name, None
        except DAMAGE as error:
            raise DataError(f"{path} is damaged ({error}). Download or copy it again") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
