"""Parallel map over worker processes, with results in order and bounded memory."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from pipeline.errors import ConfigError, DataError

AHEAD = 3  # pieces of work per worker that are queued or running
Work = TypeVar("Work")
Done = TypeVar("Done")


def in_order(
    function: Callable[[Work], Done],
    work: Iterable[Work],
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[object, ...] = (),
) -> Iterator[Done]:
    """Yield the function's result for each piece of work, in order.

    Args:
        function: called in the workers.
        work: arguments of the calls.
        workers: number of processes; 1 runs everything in this process.
        start: called once at the start of each process.
        arguments: arguments of `start`.

    Raises:
        DataError: a worker process was killed.
        ConfigError: the processes would run the script that calls this function again.
    """
    if workers == 1:
        if start is not None:
            start(*arguments)
        yield from map(function, work)
        return
    _check_script(workers)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (start, arguments))
    waiting: deque[Future[Done]] = deque()
    try:
        for piece in work:
            waiting.append(pool.submit(function, piece))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, possibly for lack of memory. "
            "Run the command again with fewer --workers to continue"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_script(workers: int) -> None:
    """Raise ConfigError for a script whose import, with which each spawned process starts, calls it again."""
    script = sys.modules["__main__"]
    file = getattr(script, "__file__", None)
    if file is None or getattr(script, "__spec__", None) is not None or not Path(file).is_file():
        return
    if "__main__" not in Path(file).read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"workers={workers}: expected a script that worker processes can import, got {file}, which would start "
            'itself in each. Put its calls below `if __name__ == "__main__":`, or use --workers 1'
        )


def _begin(start: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _exit_with_parent() -> None:
    """Exit when the parent process is killed; otherwise the worker waits for work forever."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
