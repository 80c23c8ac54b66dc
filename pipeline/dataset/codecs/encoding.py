"""Files of text: plain or compressed with gzip or xz, in UTF-8 with or without a byte order mark."""

import codecs
import gzip
import lzma
import shlex
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

Opened = BufferedReader | gzip.GzipFile | lzma.LZMAFile
PACKINGS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
HEAD = 4096  # bytes that are examined at the start of a file
MARKS = {  # the longer marks first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
FEW = 0.3  # fraction of NUL bytes above which an unmarked file is UTF-16 or UTF-32
XZ_END = b"YZ"  # the last bytes of an .xz file
MEMBERS: dict[str, tuple[bytes, Callable[[], Any]]] = {  # the first bytes of a member, and what unpacks it
    ".gz": (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    ".xz": (b"\xfd7zXZ\0", lzma.LZMADecompressor),
}
NOT_UTF8, NUL = "not UTF-8", "contains a NUL character"  # reasons of invalid records
UNPACK = {".gz": "gzip -dc", ".xz": "xz -dc"}


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case, without that of a compression: `.csv` for `A.CSV.gz`."""
    return (path.with_suffix("") if path.suffix.lower() in PACKINGS else path).suffix.lower()


def open_packed(path: Path) -> Opened:
    """Open a plain or compressed file and return its uncompressed bytes.

    Raises:
        DataError: the file cannot be opened.
    """
    with readable(path):
        opened: Opened = PACKINGS.get(path.suffix.lower(), open)(path, "rb")
        if isinstance(opened, lzma.LZMAFile):
            check_end(path)
        return opened


def check_end(path: Path) -> None:
    """Check that nothing follows the compressed data of an .xz file, which the standard library would ignore.

    Raises:
        DataError: the message has the number of bytes after the end.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        if not file.read().rstrip(b"\0").endswith(XZ_END):
            _refuse_surplus(path)


def _refuse_surplus(path: Path) -> None:
    """Raise DataError if bytes that are not another member follow the compressed data of a file."""
    magic, make = MEMBERS[path.suffix.lower()]
    unpack, surplus = make(), b""
    with path.open("rb") as file:
        while block := surplus or file.read(1 << 20):
            try:
                unpack.decompress(block)
            except (zlib.error, lzma.LZMAError):
                return  # damage inside of a member
            surplus = (unpack.unused_data + file.read(len(magic))).lstrip(b"\0") if unpack.eof else b""
            if surplus and not surplus.startswith(magic):
                break
            unpack = make() if unpack.eof else unpack
        size, whole = path.stat().st_size, file.tell() - len(surplus)
    if surplus:
        raise DataError(
            f"{path}: {size - whole:,} bytes follow the end of the compressed data. "
            f"Remove them: head -c {whole} {shlex.quote(str(path))} > FILE, or download the file again"
        )


def open_text(path: Path, name: str | None = None) -> Opened:
    """Open a plain or compressed file of text after its byte order mark, if it has one.

    Args:
        path: the file.
        name: its name in errors (default: the path).

    Raises:
        DataError: the file cannot be opened, is damaged, or is encoded in UTF-16 or UTF-32.
    """
    file = open_packed(path)
    with readable(name or path):
        head: bytes = file.peek(HEAD)[:HEAD]
        file.read(text_start(head, name or str(path)))
    return file


def text_start(head: bytes, name: str) -> int:
    """Return the number of bytes before the text: 3 for a byte order mark of UTF-8, else 0.

    Args:
        head: the first bytes of a file.
        name: the file, `-` for standard input.

    Raises:
        DataError: the text is encoded in UTF-16 or UTF-32; the message has the command that converts it.
    """
    if encoding := next((found for mark, found in MARKS.items() if head.startswith(mark)), None) or _unmarked(head):
        if name == "-":
            convert = f"iconv -f {encoding} -t UTF-8"
            raise DataError(f"standard input: expected UTF-8, got {encoding}. Pipe it through: {convert}")
        path = Path(name)
        source = f"{UNPACK[packed]} {shlex.quote(name)}" if (packed := path.suffix.lower()) in UNPACK else ""
        target = shlex.quote(str(path.with_name(f"utf8-{path.with_suffix('').name if source else path.name}")))
        command = f"iconv -f {encoding} -t UTF-8" + ("" if source else f" {shlex.quote(name)}") + f" > {target}"
        raise DataError(
            f"{name}: expected UTF-8, got {encoding}. Convert it: {source + ' | ' if source else ''}{command}"
        )
    return len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0


def _unmarked(head: bytes) -> str | None:
    """Return the encoding of text that has no mark but has NUL in most characters; None for UTF-8."""
    if len(head) < 4 or head.count(0) <= FEW * len(head):
        return None
    nul = [head[at::4].count(0) / len(head[at::4]) > 0.5 for at in range(4)]
    patterns = {
        (False, True, True, True): "UTF-32LE",
        (True, True, True, False): "UTF-32BE",
        (False, True, False, True): "UTF-16LE",
        (True, False, True, False): "UTF-16BE",
    }
    return patterns.get((nul[0], nul[1], nul[2], nul[3]))


@contextmanager
def readable(name: object) -> Iterator[None]:
    """Raise a DataError that names the file where it cannot be read or is damaged.

    Raises:
        DataError: the file cannot be read or is damaged.
    """
    try:
        yield
    except DAMAGE as error:
        if (path := Path(str(name))).suffix.lower() in MEMBERS and path.is_file():
            _refuse_surplus(path)
        raise DataError(f"{name} is damaged ({error}). Download or copy it again") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error
