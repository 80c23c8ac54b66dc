"""Signal handlers that only set a flag, which training checks between two steps in order to stop.

They handle SIGTERM, SIGUSR1, SIGINT (Ctrl-C) and SIGHUP (closed terminal). They are installed before torch is
imported, so that no signal is lost meanwhile, and again when training starts, because libraries install their own.
"""

import os
import signal
from multiprocessing import active_children
from multiprocessing.util import Finalize
from types import FrameType, SimpleNamespace

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """Raised after a requested stop, once a checkpoint is saved; the process exits with code 75."""


class _Flag:
    raised: signal.Signals | None = None
    owner: int = 0  # forked loader workers inherit the handler, which acts only in the process that installed it


def install() -> None:
    """Install the handlers in this process."""
    _Flag.owner = os.getpid()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # set by nohup
            signal.signal(number, _raise_flag)


def requested() -> signal.Signals | None:
    """Return the signal that requested a stop of this process, or None."""
    return _Flag.raised


def forget() -> None:
    """Clear the flag and restore the default handlers."""
    _Flag.raised = None
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def ignore_signals(worker: int = 0) -> None:
    """Ignore the signals in a loader worker, which must run until its training process stops, or on exit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def trust_workers() -> None:
    """Let this process and its loader workers exchange file descriptors without the key of `multiprocessing`.

    A worker is forked while other threads (of W&B) may be inside of OpenSSL, whose locks it then inherits: the HMAC of
    that key would wait for them forever. Others cannot connect, because the sockets are in a directory of this user.
    """
    from multiprocessing import resource_sharer

    without_key = SimpleNamespace(authkey=None)
    vars(resource_sharer)["process"] = SimpleNamespace(current_process=lambda: without_key)


def end_workers_at_exit() -> None:
    """Kill loader workers when this process exits: they ignore SIGTERM, so Python would wait for them forever."""
    Finalize(None, end_workers, exitpriority=0)


def end_workers() -> None:
    """Kill the loader workers of this process."""
    for worker in active_children():
        worker.kill()


def _raise_flag(number: int, frame: FrameType | None) -> None:
    if os.getpid() == _Flag.owner:
        _Flag.raised = signal.Signals(number)
