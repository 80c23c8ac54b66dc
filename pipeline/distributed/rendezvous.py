"""Before training, the first process tells the others how the attempt begins; they write nothing of the record.

They meet where torch's processes meet a moment later, at MASTER_ADDR and MASTER_PORT: the first keeps the store.
"""

import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pipeline.distributed.launch import rank
from pipeline.errors import LostPeerError, UserError

PATIENCE = timedelta(hours=1)  # the first may have a large dataset to verify
ERRAND = timedelta(seconds=30)  # for the others to hear why the first leaves

_open: list[Any] = []  # torch's own rendezvous finds the server of this process only while somebody holds it


def broadcast_result(say: Callable[[], dict[str, Any]], world_size: int, about: str = "start") -> dict[str, Any]:
    """What `say` returns on the first process, on every process.

    Args:
        say: called on the first process alone; its answer must survive JSON.
        world_size: processes that meet.
        about: what is told; each once.

    Raises:
        UserError: on the others, with the exit code of what the first raised, which says it to the user.
        LostPeerError: they cannot meet; the next start of a job meets at another port.
    """
    from torch.distributed import DistNetworkError
    from torch.distributed.rendezvous import rendezvous

    try:
        store, *_ = next(rendezvous("env://", rank(), world_size))
    except DistNetworkError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LostPeerError(
            f"the processes cannot meet at {place}: another program has the port, or this node does not reach the "
            f"first one ({str(error).splitlines()[0]}); unroll doctor tells more, MASTER_PORT names another port"
        ) from error
    _open.append(store)
    if rank():
        store.set_timeout(PATIENCE)
        heard: dict[str, Any] = json.loads(store.get(about))
        store.add(f"heard {about}", 1)
        if "failed" in heard:
            failure = UserError("the first process could not start")
            failure.exit_code = heard["failed"]
            raise failure
        return heard
    try:
        said = say()
    except BaseException as error:
        store.set(about, json.dumps({"failed": getattr(error, "exit_code", 1)}))
        _wait_until_heard(store, f"heard {about}", world_size - 1)
        raise
    store.set(about, json.dumps(said))
    return said


def _wait_until_heard(store: Any, heard: str, others: int) -> None:
    """The store ends with this process: the others must have read it."""
    import time

    until = time.monotonic() + ERRAND.total_seconds()
    while store.add(heard, 0) < others and time.monotonic() < until:
        time.sleep(0.05)
