"""Work for several processes, done in order: only so much is under way that memory stays bounded."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from pipeline.errors import DataError

AHEAD = 3  # pieces of work for each worker that wait or are being done
Work = TypeVar("Work")
Done = TypeVar("Done")


def in_order(
    function: Callable[[Work], Done],
    work: Iterable[Work],
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Done]:
    """What the function makes of each piece of work, in order.

    Args:
        function: done in the workers.
        work: what is done.
        workers: processes; 1 is this one.
        start: called first in each of them.
        arguments: what it is called with.

    Raises:
        DataError: a worker process was killed.
    """
    if workers == 1:
        if start is not None:
            start(*arguments)
        yield from map(function, work)
        return
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
            "a worker process was killed (out of memory?); the same command with fewer --workers continues"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
