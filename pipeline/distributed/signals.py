"""SIGTERM, SIGUSR1, Ctrl-C and a closed terminal only raise a flag: training looks at it between two steps and leaves.

The handlers are installed before torch is imported, so a signal during the seconds of importing is not
lost, and again when training starts, because libraries install their own.
"""

import os
import signal
from multiprocessing import active_children
from multiprocessing.util import Finalize
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """The run was asked to stop, saved a checkpoint and leaves with exit code 75."""


class _Flag:
    raised: signal.Signals | None = None
    owner: int = 0  # forked loader workers inherit the handler: only the process that installed it listens


def install() -> None:
    """Make the signals raise the flag of this process."""
    _Flag.owner = os.getpid()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _raise_flag)


def requested() -> signal.Signals | None:
    """The signal that asked this process to stop, if one did."""
    return _Flag.raised


def forget() -> None:
    """Lower the flag and give the signals their default meaning back."""
    _Flag.raised = None
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def ignore_signals(worker: int = 0) -> None:
    """A loader worker leaves when its process does, not before: the stop is the trainer's to decide."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_workers_at_exit() -> None:
    """Have loader workers end with this process: they ignore the signal after which Python waits for them."""
    Finalize(None, end_workers, exitpriority=0)


def end_workers() -> None:
    """Kill the loader workers of this process."""
    for worker in active_children():
        worker.kill()


def _raise_flag(number: int, frame: FrameType | None) -> None:
    if os.getpid() == _Flag.owner:
        _Flag.raised = signal.Signals(number)
