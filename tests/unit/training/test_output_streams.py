"""Output that cannot be written is dropped, and nothing fails because of it."""

import os
import sys

import pytest

from pipeline.training.output_streams import OutputStream, tolerate_closed_output


def test_a_broken_pipe_is_tolerated() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = OutputStream(os.fdopen(write, "w", buffering=1))
    for _ in range(3):
        assert stream.write("no reader is left\n") == 18
        stream.flush()
    stream.stream.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="requires /dev/full")
def test_a_full_disk_under_a_log_is_tolerated_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:  # the rest of its buffer must be discarded
        monkeypatch.setattr(sys, "stdout", full)
        with tolerate_closed_output():
            print("a line", flush=True)
            print("another")
        assert sys.stdout is full
