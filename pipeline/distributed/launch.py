"""One process a device: forked after the imports and checks, supervised until all have left.

Where a launcher of the cluster started the processes already (srun, torchrun), nothing is forked.
"""

import atexit
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from pipeline.distributed import exit_code, signals
from pipeline.errors import TRY_AGAIN, ConfigError, HangError, LostPeerError

PATIENCE = 30.0  # seconds the others are given when one process has failed
GRACE = 3.0  # the same when it was killed: they cannot finish a step without it


def started_elsewhere(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several that a launcher started."""
    return "LOCAL_WORLD_SIZE" in environment


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Which process of the run this is; 0 keeps its record."""
    return int(environment.get("RANK", environment.get("LOCAL_RANK", "0")))


def count_processes(trainer: Mapping[str, Any]) -> int:
    """Processes that this node runs: as many as the launcher started, else from the trainer's part of the config.

    Raises:
        ConfigError: `devices` is none of the forms that Lightning takes.
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
        raise ConfigError(f"trainer.devices={devices!r} is neither a number, a list nor auto")
    return len(parts) if "," in str(devices) else int(parts[0])


def forks(trainer: Mapping[str, Any]) -> bool:
    """Whether this process forks those that train, rather than being one of them."""
    return not started_elsewhere() and count_processes(trainer) > 1


def world_size(trainer: Mapping[str, Any]) -> int:
    """Processes of the whole run, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", count_processes(trainer) * trainer["num_nodes"]))


def supervise(processes: int, work: Callable[[], int]) -> int:
    """Do the work in as many forks of this process, and wait until all have ended.

    Args:
        processes: of this node.
        work: done by each of them, whose environment names its rank; returns its exit code.

    Returns:
        The exit code of the run: that of the process that failed first, and not because another did; else 75 if they
        stopped, else 0.
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
    """End this process with the exit code of its work, as the interpreter would end it."""
    code = 1
    try:
        _die_with(parent)
        os.environ |= environment
        signals.install()
        atexit._clear()  # what the parent registered is the parent's to do
        atexit.register(signals.end_workers)
        code = exit_code.of(work)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):  # whatever happens, this process does not run the code of its parent
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
    return max(codes, key=_cause)  # of equal ones the first


def _cause(code: int) -> int:
    """How likely an exit code is the reason for the others: a process that was killed tells nobody."""
    if code > 128:
        return 4
    return {0: 0, TRY_AGAIN: 1, LostPeerError.exit_code: 2}.get(code, 3)


def _is_silent(code: int) -> bool:
    """Whether those that are still there can do nothing but wait for one that will say no more."""
    return code > 128 or code in (LostPeerError.exit_code, HangError.exit_code)


def _end(children: set[int]) -> None:
    """Have them write their stacks, then kill them."""
    _signal(children, signal.SIGUSR2)
    time.sleep(0.5)
    _signal(children, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


def _ended(alive: set[int]) -> dict[int, int]:
    """The exit codes of those that have left since the last look."""
    found = ((child, os.waitpid(child, os.WNOHANG)) for child in alive)
    return {child: exit_code.as_shell(os.waitstatus_to_exitcode(status)) for child, (gone, status) in found if gone}


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies: nobody would hold the run for it any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def _signal(children: set[int], number: int) -> None:
    for child in children:
        os.kill(child, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _count_gpus() -> int:
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # count without initialising: children are forked
    import torch

    return max(1, torch.cuda.device_count())
