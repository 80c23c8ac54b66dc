"""Runs that a command plans: skip what is finished, wait for other processes, train, and pass on a request to stop."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.distributed import exit_code, signals
from pipeline.errors import TRY_AGAIN, ConfigError
from pipeline.runs.changes import Effect, changes
from pipeline.runs.run import Run

LOOK = 0.2  # polling interval in seconds
VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_has_finished(path: Path, arguments: Sequence[str], advice: str) -> bool:
    """Return whether a run has finished under the limits of its config.

    Args:
        path: directory of the run.
        arguments: arguments of `unroll fit`, the first one a config.
        advice: what to do about a run with another config.

    Raises:
        ConfigError: a run of that name exists with another config, or another learning rate or schedule.
    """
    from pipeline.runs import resume
    from pipeline.training.config import parse_config

    run = Run(path)
    if not run.record.get("attempts"):
        return False
    config = resume.kept_config(parse_config(["--config", *arguments]))
    found = changes(run, config)
    if changed := [each for each in found if each.effect is not Effect.PRINTED or each.key.startswith("model.")]:
        raise ConfigError(f"{path} exists with another config ({'; '.join(map(str, changed))}). {advice}")
    return resume.is_finished(run, config)


def wait_for(path: Path) -> bool:
    """Wait until no other process, such as one of a killed command, trains the run; return False after a signal."""
    printed = False
    while not signals.requested():
        try:
            with Run(path).lock():
                return True
        except ConfigError:
            if not printed:
                print(f"{path}: waiting for another process that trains this run", flush=True)
            printed = True
            time.sleep(LOOK)
    return False


def run_unroll(
    arguments: Sequence[str], device: str | None = None, meanwhile: Callable[[], object] = lambda: None
) -> int:
    """Run a command of `unroll`, pass on a request to stop, and return the exit code.

    Args:
        arguments: arguments of `unroll`, its verb first.
        device: the only GPU that the command can use; None for all of them.
        meanwhile: called again and again while the command runs.
    """
    environment = os.environ | ({} if device is None else {VISIBLE: device})
    child, signalled = subprocess.Popen([sys.executable, "-m", "pipeline", *arguments], env=environment), False
    while child.poll() is None:
        if signals.requested() and not signalled:
            child.send_signal(signal.SIGTERM)
            signalled = True
        meanwhile()
        time.sleep(LOOK)
    return exit_code.as_shell(child.returncode)


def run_together(commands: Sequence[Sequence[str]], at_once: int) -> list[int]:
    """Run commands of `unroll`, several at once, and return their exit codes; after a request to stop, start no more.

    Args:
        commands: arguments of each command.
        at_once: maximum number of commands at the same time. If it is above 1, each has a GPU of its own, if any.

    Raises:
        ConfigError: there are fewer GPUs than commands at once.
    """
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for device in _devices(at_once):
        free.put(device)

    def run(arguments: Sequence[str]) -> int:
        if signals.requested():
            return TRY_AGAIN
        device = free.get()
        try:
            return run_unroll(arguments, device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(run, commands))


def _devices(at_once: int) -> list[str | None]:
    """Return the GPU of each of several commands; None where it is not restricted."""
    import torch

    found: list[str | None] = [None] * at_once
    if at_once > 1 and torch.cuda.is_available():
        given = os.environ.get(VISIBLE)
        names = given.split(",") if given else [str(k) for k in range(torch.cuda.device_count())]
        if at_once > len(names):
            raise ConfigError(f"--at-once={at_once}: expected at most {len(names)}, the number of GPUs. Decrease it")
        found[:] = names[:at_once]
    return found
