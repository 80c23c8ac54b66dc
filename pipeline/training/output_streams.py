"""Output that never fails training: not on a closed terminal, a broken pipe or a log on a full disk."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

GONE = {errno.EPIPE, errno.EIO, errno.EBADF}  # the reader will not return


@runtime_checkable
class WritableStream(Protocol):
    """What is required of a text stream."""

    def write(self, text: str, /) -> int:
        """Write the text and return the number of characters."""

    def flush(self) -> None:
        """Flush the buffer."""

    def fileno(self) -> int:
        """Return the file descriptor."""


class OutputStream:
    """A text stream that ignores write errors.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: WritableStream) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text if possible, and return the number of characters."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._handle(error)
            return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        try:
            self.stream.flush()
        except OSError as error:
            self._handle(error)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def _handle(self, error: OSError) -> None:
        if error.errno in GONE:
            self.mute()

    def mute(self) -> None:
        """Redirect all further output, and the stream's buffer, to the null device."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@contextmanager
def tolerate_closed_output() -> Iterator[None]:
    """Within the context, drop what cannot be written to standard output and error."""
    before = sys.stdout, sys.stderr
    streams = [OutputStream(each) for each in before]
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            try:
                stream.stream.flush()
            except OSError:
                stream.mute()  # otherwise the flush at exit fails and changes the exit code
