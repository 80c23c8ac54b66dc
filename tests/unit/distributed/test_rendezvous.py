"""Processes that cannot meet leave with the code after which a job starts again, and meets elsewhere."""

import socket

import pytest

from pipeline.distributed import rendezvous
from pipeline.errors import LostPeerError


def test_a_port_that_another_program_has_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("RANK", "0")):
            monkeypatch.setenv(name, value)
        with pytest.raises(LostPeerError, match=f"cannot meet at 127.0.0.1:{port}: another program has the port"):
            rendezvous.broadcast_result(dict, 2)
