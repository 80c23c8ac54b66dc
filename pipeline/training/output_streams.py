"""Training goes on when nobody listens any more: a closed terminal, a pipe that was cut, a log on a full disk."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GONE = {errno.EPIPE, errno.EIO, errno.EBADF}  # whoever listened does not come back


class OutputStream:
    """A stream that says what it can and never fails.

    Args:
        stream: where it goes: any text stream, one that a test listens to as well.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            return int(self.stream.write(text))
        except OSError as error:
            self._bear(error)
            return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        try:
            self.stream.flush()
        except OSError as error:
            self._bear(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _bear(self, error: OSError) -> None:
        if error.errno in GONE:
            self.mute()

    def mute(self) -> None:
        """Send everything from now on to nowhere, what is still in the stream's buffer too."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@contextmanager
def may_leave() -> Iterator[None]:
    """Within, what cannot be written to standard output and error is dropped."""
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
                stream.mute()  # else the interpreter would fail at its end, and with it the exit code
