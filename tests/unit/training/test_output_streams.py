"""What cannot be said is dropped, and nothing fails because of it."""

import os
import sys

import pytest

from pipeline.training.output_streams import OutputStream, may_leave


def test_a_pipe_that_was_cut_is_borne() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = OutputStream(os.fdopen(write, "w", buffering=1))
    for _ in range(3):
        assert stream.write("nobody hears this\n") == 18
        stream.flush()
    stream.stream.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="wants /dev/full")
def test_a_full_disk_under_a_log_is_borne_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:  # what is left in its buffer must go nowhere
        monkeypatch.setattr(sys, "stdout", full)
        with may_leave():
            print("a line", flush=True)
            print("another")
        assert sys.stdout is full
