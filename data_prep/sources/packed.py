"""Files, plain or packed with gzip or xz, and the lines of text in them."""

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
    """The bytes of a file, plain or packed.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        opened: IO[bytes] = PACKINGS.get(path.suffix, open)(path, "rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return opened


def text_lines(path: Path, report: Report) -> Iterator[tuple[str, str | None]]:
    """The name of each line and the line; None where it is not UTF-8, which is counted."""
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
            raise DataError(f"{path} is damaged ({error}); fetch it again") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
