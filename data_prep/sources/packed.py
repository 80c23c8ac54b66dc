"""Lines of text of files, plain or compressed with gzip or xz."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import DAMAGE, NOT_UTF8, PACKINGS, Opened, open_packed, open_text, readable

__all__ = ["DAMAGE", "PACKINGS", "open_packed", "text_lines"]


def text_lines(path: Path, report: Report) -> Iterator[tuple[str, str | None]]:
    """Yield the name and the text of each line; the text is None if the line is not UTF-8, which is reported.

    Raises:
        DataError: the file cannot be read, is damaged, or is encoded in UTF-16 or UTF-32.
    """
    shown = str(path)
    with open_text(path) as file, readable(path):
        for number, line in enumerate(_lines(file), 1):
            name = f"{shown}:{number}"
            try:
                yield name, line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                report.reject(name, NOT_UTF8)
                yield name, None


def _lines(file: Opened) -> Iterator[bytes]:
    """Return the lines between newlines, or between carriage returns if the file has no newline.

    Otherwise a carriage return is part of a line, so that lines of parallel files correspond.
    """
    first = file.readline()
    return chain([first] if first.endswith(b"\n") else first.splitlines(), file)
