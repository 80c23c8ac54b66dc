"""Start one process per device by forking after imports and checks, and supervise them until all have exited.

Where a launcher (srun, torchrun) has started the processes already, nothing is forked.
"""

import atexit
import ctypes
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NoReturn

from pipeline.distributed import exit_code, signals
from pipeline.errors import TRY_AGAIN, ConfigError, HangError, LostPeerError

PATIENCE = 30.0  # seconds until the other processes are killed after one has failed
GRACE = 3.0  # the same after one was killed: the others cannot finish a step without it


def started_elsewhere(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a launcher started this process as one of several."""
    return "LOCAL_WORLD_SIZE" in environment


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Return the global rank of this process; rank 0 writes the run's record."""
    return int(environment.get("RANK", environment.get("LOCAL_RANK", "0")))


def count_processes(trainer: Mapping[str, object]) -> int:
    """Return the number of processes on this node, from the launcher or else from `trainer` in the config.

    Raises:
        ConfigError: Lightning does not accept the value of `devices`.
    """
    if started_elsewhere():
        return int(os.environ["LOCAL_WORLD_SIZE"])
    devices, accelerator = trainer.get("devices", "auto"), trainer.get("accelerator", "auto")
    if isinstance(devices, list | tuple):
        return len(devices)
    if isinstance(devices, int) and devices >= 1:
        return devices
    if str(devices) in ("auto", "-1"):
        return _count_gpus() if accelerator in ("auto", "gpu", "cuda") else 1
    parts = [part for part in str(devices).split(",") if part.strip()]
    if not parts or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(f"trainer.devices={devices!r}: expected a positive number, a list of indices, or auto")
    return len(parts) if "," in str(devices) else int(parts[0])


def forks(trainer: Mapping[str, object]) -> bool:
    """Return whether this process forks the training processes instead of training itself."""
    return not started_elsewhere() and count_processes(trainer) > 1


def world_size(trainer: Mapping[str, object]) -> int:
    """Return the number of processes of the run, on all nodes."""
    nodes = trainer["num_nodes"]
    assert isinstance(nodes, int)
    return int(os.environ.get("WORLD_SIZE", count_processes(trainer) * nodes))


def supervise(processes: int, work: Callable[[], int]) -> int:
    """Call `work` in forks of this process and wait until all have exited.

    Args:
        processes: number of forks on this node.
        work: called in each fork, whose environment contains its rank. Returns the exit code.

    Returns:
        The exit code of the process that failed first for a cause of its own. Without a failure, 75 if the processes
        were stopped, else 0.
    """
    parent, children = os.getpid(), {}
    place = {"MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"), "MASTER_PORT": str(_free_port())}
    sys.stdout.flush()
    sys.stderr.flush()
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            _work_and_exit(parent, {**place, "NODE_RANK": "0", "LOCAL_RANK": str(rank)}, work)
        children[child] = rank
    return _wait(children)


def _work_and_exit(parent: int, environment: Mapping[str, str], work: Callable[[], int]) -> NoReturn:
    """Call `work` and exit with its exit code, after the cleanup that the interpreter performs on exit."""
    code = 1
    try:
        _die_with(parent)
        os.environ |= environment
        signals.install()
        atexit._clear()  # the handlers of the parent must run in the parent only
        atexit.register(signals.end_workers)
        code = exit_code.of(work)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):  # on any error this process must still exit below, not return to its caller
            threading._shutdown()  # type: ignore[attr-defined]  # threads may still be writing
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(children: dict[int, int]) -> int:
    forwarded, deadline = False, 0.0
    codes: list[int] = []
    alive = set(children)
    while alive:
        if signals.requested() is not None and not forwarded:
            forwarded = True
            _signal(alive, signal.SIGTERM)
        ended = _ended(alive)
        alive.difference_update(ended)
        for child, code in ended.items():
            if code > 128 and not deadline:
                print(f"unroll: rank {children[child]} was killed by signal {code - 128}", file=sys.stderr)
        codes.extend(sorted(ended.values(), key=_cause))
        worst = max(codes, key=_cause, default=0)
        if not deadline and _cause(worst) > 1:
            deadline = time.monotonic() + (GRACE if _is_silent(worst) else PATIENCE)
        if deadline and time.monotonic() > deadline:
            _end(alive)
            break
        time.sleep(0.02)
    return max(codes, key=_cause)  # the first of equal ones


def _cause(code: int) -> int:
    """Return a rank of exit codes: the higher, the more likely the process made the others fail."""
    if code > 128:
        return 4
    return {0: 0, TRY_AGAIN: 1, LostPeerError.exit_code: 2}.get(code, 3)


def _is_silent(code: int) -> bool:
    """Return whether a process exited without notifying the others, which then block in a collective."""
    return code > 128 or code in (LostPeerError.exit_code, HangError.exit_code)


def _end(children: set[int]) -> None:
    """Make the processes dump their stack traces, then kill them."""
    _signal(children, signal.SIGUSR2)
    time.sleep(0.5)
    _signal(children, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


def _ended(alive: set[int]) -> dict[int, int]:
    """Return the exit codes of processes that have exited since the last call."""
    found = ((child, os.waitpid(child, os.WNOHANG)) for child in alive)
    return {child: exit_code.as_shell(os.waitstatus_to_exitcode(status)) for child, (gone, status) in found if gone}


def _die_with(parent: int) -> None:
    """Make the kernel kill this process when its parent dies, because the parent holds the lock of the run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _signal(children: set[int], number: int) -> None:
    for child in children:
        os.kill(child, number)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, in a process that forks later: OpenMP's threads are not forked, and waits would hang."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _free_port() -> int:
    """Return a port on which nobody listens, below those that Linux gives to outgoing connections."""
    with socket.socket() as probe:
        for port in (*random.SystemRandom().sample(range(20000, 32768), 100), 0):  # 0: any
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                break
        return int(probe.getsockname()[1])


def _count_gpus() -> int:
    os.environ.setdefault(
        "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
    )  # forked children cannot use a GPU that is initialized here
    import torch

    return max(1, torch.cuda.device_count())
