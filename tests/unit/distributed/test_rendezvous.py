"""Processes that cannot connect raise LostPeerError, after which the job is requeued and uses another port."""

import socket

import pytest

from pipeline.distributed import rendezvous
from pipeline.errors import LostPeerError


def test_a_port_that_is_in_use_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port), ("RANK", "0")):
            monkeypatch.setenv(name, value)
        with pytest.raises(LostPeerError, match=rf"cannot connect at 127.0.0.1:{port} .*: the port is in use"):
            rendezvous.broadcast_result(dict, 2)
