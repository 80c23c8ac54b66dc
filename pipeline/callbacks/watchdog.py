"""A watchdog: if a process dies, hangs or exits, the others stop within a minute and write their stack traces.

A thread of each process publishes, through the store of the process group, a growing counter and the time since the
main thread last made progress, and reads those of the others. No launcher or cluster support is required.
"""

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from pipeline.errors import HangError, LostPeerError, UserError

DUMP = signal.SIGUSR2  # makes a process write its stack traces, even if it is stuck in a library
LEFT, DONE = "left", "done"
GRACE = 5.0  # seconds in which a process that lost a peer may still fail with an error of its own


class Pulse:
    """The state of all processes: when each last sent a heartbeat, and how long each has made no progress.

    Args:
        patience: seconds without a heartbeat or progress that are tolerated.
        ranks: ranks of the processes; a process without any heartbeat is timed from `now`.
        now: current time in seconds, on the clock of `update`.
    """

    def __init__(self, patience: float, ranks: Iterable[int], now: float) -> None:
        self.patience = patience
        self.messages: dict[int, str] = {}
        self.last_seen = dict.fromkeys(ranks, now)

    def update(self, messages: Mapping[int, str], now: float) -> None:
        """Read messages: a growing counter and the seconds without progress, or `left REASON`, or `done`."""
        for rank, message in messages.items():
            if self.messages.get(rank) != message:
                self.messages[rank], self.last_seen[rank] = message, now

    def restart(self, now: float) -> None:
        """Restart all timeouts, because this process itself was suspended."""
        self.last_seen = dict.fromkeys(self.last_seen, now)

    def failure(self, mine: int, still: float, now: float) -> UserError | None:
        """Return the failure of the run, if there is one.

        Args:
            mine: rank of this process.
            still: seconds in which its main thread has made no progress.
            now: current time in seconds, on the clock of `update`.
        """
        stills = [still]
        for rank, last_seen in self.last_seen.items():
            message = self.messages.get(rank, "0 0.0")
            if rank == mine:
                continue
            if message.startswith((LEFT, DONE)):
                if still > (GRACE if message.startswith(LEFT) else self.patience):
                    return LostPeerError(f"process {rank} exited ({message}) while this process waits for it")
            elif now - last_seen > self.patience:
                return LostPeerError(f"process {rank} has not responded for {now - last_seen:.0f} s")
            else:
                stills.append(float(message.split()[1]))
        if min(stills) > self.patience:
            return HangError(f"no process has made progress for {min(stills):.0f} s")
        return None


@dataclass(frozen=True)
class WatchdogSettings:
    """How long a process waits for the others.

    Args:
        patience: seconds without a heartbeat of another process, or without progress of any process, after which
            this process stops; None disables the watchdog.

    Raises:
        ValueError: the patience is below one second.
    """

    patience: float | None = 60.0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience} must be at least one second")


class Watchdog(Callback):
    """Watches the other processes of the run; inactive with a single process.

    Args:
        settings: how long to wait.
        directory: directory of the stack traces.
    """

    def __init__(self, settings: WatchdogSettings, directory: Path) -> None:
        self.patience, self.directory = settings.patience or 0.0, directory
        self.interval = min(1.0, self.patience / 10)
        self.batches = 0
        self.thread: threading.Thread | None = None
        self.ended = threading.Event()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the watchdog if there are other processes."""
        if not self.patience or trainer.world_size == 1 or stage != "fit":
            return
        shared: Any = torch.distributed.distributed_c10d._get_default_store()
        store = shared.clone()  # a connection for this thread alone
        store.set_timeout(timedelta(seconds=self.patience))
        self.store, self.rank, self.ranks = store, trainer.global_rank, [*range(trainer.world_size)]
        self.present: list[int] = []  # ranks that have sent a message
        self.main = threading.get_ident()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / f"{time.strftime('%Y%m%dT%H%M%S')}-rank-{self.rank:05d}.txt"
        self.file = self.path.open("w")
        faulthandler.register(DUMP, self.file, all_threads=True)
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()

    def on_train_batch_start(self, *_: object) -> None:
        self.batches += 1

    def on_validation_batch_start(self, *_: object) -> None:
        self.batches += 1

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Inform the other processes that this one exits, and write its traceback."""
        if isinstance(exception, Exception):
            self._end(f"{LEFT} after {type(exception).__name__}", exception)
        else:
            self._end(DONE)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._end(DONE)

    def _end(self, message: str, exception: Exception | None = None) -> None:
        """Stop the watchdog and publish the message; remove the file of stack traces if it is empty."""
        if self.thread is None:
            return
        self.ended.set()
        self.thread.join(self.patience)
        self.thread = None
        with contextlib.suppress(RuntimeError):  # the process that hosts the store may have exited
            self.store.set(_key(self.rank), message)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(DUMP)
        if exception is not None:
            traceback.print_exception(exception, file=self.file)
        empty = not self.file.tell()
        self.file.close()
        if empty and not self.path.stat().st_size:
            self.path.unlink()

    def _watch(self) -> None:
        count, looked, moved = 0, time.monotonic(), time.monotonic()
        sign: tuple[object, ...] = ()
        pulse = Pulse(self.patience, self.ranks, looked)
        while not self.ended.wait(self.interval):
            # A clock in C ends the process if the interpreter lock keeps this thread from running too.
            faulthandler.dump_traceback_later(2 * self.patience, exit=True, file=self.file)
            now, count, latest = time.monotonic(), count + 1, self._sign()
            if now - looked > max(5 * self.interval, self.patience / 4):
                pulse.restart(now)  # this process was suspended, or the machine is overloaded
                moved = now
            if latest != sign:
                sign, moved = latest, now
            looked = now
            try:
                pulse.update(self._exchange(f"{count} {now - moved:.1f}"), now)
            except RuntimeError:  # the store does not respond: the process that hosts it is timed out
                looked = time.monotonic()
            failure = pulse.failure(self.rank, now - moved, time.monotonic())
            if failure is not None and not self.ended.is_set():
                self._stop(failure)

    def _exchange(self, message: str) -> dict[int, str]:
        """Publish the message and return those of all processes."""
        self.store.set(_key(self.rank), message)
        if self.present != self.ranks:  # some processes have not sent their first message
            self.present = [rank for rank in self.ranks if self.store.check([_key(rank)])]
        received = self.store.multi_get([_key(rank) for rank in self.present])
        return {rank: text.decode() for rank, text in zip(self.present, received, strict=True)}

    def _sign(self) -> tuple[object, ...]:
        """Return a value that changes with the main thread's progress: its stack and the number of batches."""
        frame, places = sys._current_frames().get(self.main), []
        while frame is not None:
            places.append((id(frame.f_code), frame.f_lasti))
            frame = frame.f_back
        return (self.batches, *places)

    def _stop(self, failure: UserError) -> None:
        """Write the stacks of all threads and exit; the main thread may be stuck."""
        print(f"{failure}; stacks of process {self.rank}:", file=self.file, flush=True)
        faulthandler.dump_traceback(self.file, all_threads=True)
        print(f"unroll: error: rank {self.rank}: {failure}; stacks in {self.directory}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        time.sleep(2 * self.interval)  # the others read the store, which this process may host
        os._exit(failure.exit_code)


def _key(rank: int) -> str:
    return f"watchdog/{rank}"
