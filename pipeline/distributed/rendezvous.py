"""Broadcast results from the first process before training starts; only the first process writes the run's record.

The processes connect to the store at MASTER_ADDR and MASTER_PORT, which torch.distributed uses again afterwards.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from pipeline.distributed.launch import rank
from pipeline.errors import LostPeerError, UserError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Result = TypeVar("Result", bound=Mapping[str, object])

PATIENCE = timedelta(hours=1)  # the first process may have a large dataset to verify
ERRAND = timedelta(seconds=30)  # for the other processes to read why the first one exits

_open: list["Store"] = []  # the server runs only while its store is referenced, and torch.distributed needs it later


def broadcast_result(produce: Callable[[], Result], world_size: int, about: str = "start") -> Result:
    """Call `produce` on the first process and return its result on every process.

    Args:
        produce: called on the first process only. Its result must be serializable as JSON.
        world_size: number of processes.
        about: key of the result in the store; each key is used once.

    Raises:
        UserError: on the other processes, with the exit code of the error on the first one, which prints it.
        LostPeerError: the processes cannot connect. The next start of a job uses another port.
    """
    from torch.distributed import DistNetworkError
    from torch.distributed.rendezvous import rendezvous

    try:
        store, *_ = next(rendezvous("env://", rank(), world_size))
    except DistNetworkError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise LostPeerError(
            f"the processes cannot connect at {place} ({str(error).splitlines()[0]}): the port is in use, or the first "
            "node is not reachable. Run `unroll doctor`, or set MASTER_PORT to another port."
        ) from error
    _open.append(store)
    if rank():
        store.set_timeout(PATIENCE)
        received: Result = json.loads(store.get(about))
        store.add(f"received {about}", 1)
        if "failed" in received:
            failure = UserError("the first process could not start")
            failure.exit_code = int(str(received["failed"]))
            raise failure
        return received
    try:
        result = produce()
    except BaseException as error:
        store.set(about, json.dumps({"failed": getattr(error, "exit_code", 1)}))
        _wait_until_received(store, f"received {about}", world_size - 1)
        raise
    store.set(about, json.dumps(result))
    return result


def _wait_until_received(store: "Store", key: str, others: int) -> None:
    """Wait until the other processes have read the result, because the store closes when this process exits."""
    import time

    until = time.monotonic() + ERRAND.total_seconds()
    while store.add(key, 0) < others and time.monotonic() < until:
        time.sleep(0.05)
