"""A process that dies, hangs or leaves makes the others stop within a minute, each writing down where it stood.

A thread of every process tells the others, through the store in which they met, that it lives and for how long its
main thread has not moved; and it listens to them. So nothing is asked of a launcher or a cluster.
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

DUMP = signal.SIGUSR2  # makes a process write its stacks, even one that is stuck in a library
LEFT, DONE = "left", "done"
GRACE = 5.0  # seconds in which a process that lost another may still end by an error of its own


class Pulse:
    """What is known of the processes: which of them were heard when, and how long each has not moved.

    Args:
        patience: seconds without a sign that are borne.
        ranks: of the processes; one that says nothing at all counts from now on.
        now: seconds, on the clock of `hear`.
    """

    def __init__(self, patience: float, ranks: Iterable[int], now: float) -> None:
        self.patience = patience
        self.said: dict[int, str] = {}
        self.heard = dict.fromkeys(ranks, now)

    def hear(self, said: Mapping[int, str], now: float) -> None:
        """Take what the processes say: a growing number and the seconds without a move, `left REASON` or `done`."""
        for rank, word in said.items():
            if self.said.get(rank) != word:
                self.said[rank], self.heard[rank] = word, now

    def forgive(self, now: float) -> None:
        """Start counting anew: this process itself stood still, and has not listened."""
        self.heard = dict.fromkeys(self.heard, now)

    def trouble(self, mine: int, still: float, now: float) -> UserError | None:
        """What is wrong with the run, if anything is.

        Args:
            mine: rank of this process.
            still: seconds for which its main thread has not moved.
            now: seconds, on the clock of `hear`.
        """
        stills = [still]
        for rank, heard in self.heard.items():
            word = self.said.get(rank, "0 0.0")
            if rank == mine:
                continue
            if word.startswith((LEFT, DONE)):
                if still > (GRACE if word.startswith(LEFT) else self.patience):
                    return LostPeerError(f"process {rank} {word}, this one waits for it")
            elif now - heard > self.patience:
                return LostPeerError(f"process {rank} has not been heard for {now - heard:.0f} s")
            else:
                stills.append(float(word.split()[1]))
        if min(stills) > self.patience:
            return HangError(f"no process has moved for {min(stills):.0f} s")
        return None


@dataclass(frozen=True)
class WatchdogSettings:
    """How long a process waits for the others.

    Args:
        patience: seconds without a sign of another process, or in which none of them moves, after which this one
            stops; None watches nothing.

    Raises:
        ValueError: if the patience is below a second.
    """

    patience: float | None = 60.0

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience} must be at least one second")


class Watchdog(Callback):
    """Watches over the other processes of the run; there is none where there is one process.

    Args:
        settings: how long it waits.
        directory: where stacks are written.
    """

    def __init__(self, settings: WatchdogSettings, directory: Path) -> None:
        self.patience, self.directory = settings.patience or 0.0, directory
        self.interval = min(1.0, self.patience / 10)
        self.batches = 0
        self.thread: threading.Thread | None = None
        self.ended = threading.Event()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start watching, where there are others."""
        if not self.patience or trainer.world_size == 1 or stage != "fit":
            return
        met: Any = torch.distributed.distributed_c10d._get_default_store()
        store = met.clone()  # may be used beside it
        store.set_timeout(timedelta(seconds=self.patience))
        self.store, self.rank, self.ranks = store, trainer.global_rank, [*range(trainer.world_size)]
        self.speaking: list[int] = []
        self.main = threading.get_ident()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / f"{time.strftime('%Y%m%dT%H%M%S')}-rank-{self.rank:05d}.txt"
        self.file = self.path.open("w")
        faulthandler.register(DUMP, self.file, all_threads=True)
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()

    def on_train_batch_start(self, *_: Any) -> None:
        self.batches += 1

    def on_validation_batch_start(self, *_: Any) -> None:
        self.batches += 1

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Tell the others that this process leaves, and write down why."""
        if isinstance(exception, Exception):
            self._end(f"{LEFT} after {type(exception).__name__}", exception)
        else:
            self._end(DONE)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._end(DONE)

    def _end(self, word: str, exception: Exception | None = None) -> None:
        """Stop watching and say so; leave no file where there is nothing to tell."""
        if self.thread is None:
            return
        self.ended.set()
        self.thread.join(self.patience)
        self.thread = None
        with contextlib.suppress(RuntimeError):  # the process that kept the store may be gone
            self.store.set(_key(self.rank), word)
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(DUMP)
        if exception is not None:
            traceback.print_exception(exception, file=self.file)
        empty = not self.file.tell()
        self.file.close()
        if empty and not self.path.stat().st_size:
            self.path.unlink()

    def _watch(self) -> None:
        count, looked, sign, moved = 0, time.monotonic(), (), time.monotonic()
        pulse = Pulse(self.patience, self.ranks, looked)
        while not self.ended.wait(self.interval):
            # whoever keeps this thread from running too (the interpreter is locked) is stopped by a clock in C
            faulthandler.dump_traceback_later(2 * self.patience, exit=True, file=self.file)
            now, count, latest = time.monotonic(), count + 1, self._sign()
            if now - looked > max(5 * self.interval, self.patience / 4):
                pulse.forgive(now)  # stopped and woken: a suspended job, an overloaded machine
                moved = now
            if latest != sign:
                sign, moved = latest, now
            looked = now
            try:
                pulse.hear(self._exchange(f"{count} {now - moved:.1f}"), now)
            except RuntimeError:  # the store does not answer: its keeper is heard no more
                looked = time.monotonic()
            trouble = pulse.trouble(self.rank, now - moved, time.monotonic())
            if trouble is not None and not self.ended.is_set():
                self._stop(trouble)

    def _exchange(self, word: str) -> dict[int, str]:
        """Say `word`; hear what the others say."""
        self.store.set(_key(self.rank), word)
        if self.speaking != self.ranks:  # not all have said their first word yet
            self.speaking = [rank for rank in self.ranks if self.store.check([_key(rank)])]
        said = self.store.multi_get([_key(rank) for rank in self.speaking])
        return {rank: word.decode() for rank, word in zip(self.speaking, said, strict=True)}

    def _sign(self) -> tuple[Any, ...]:
        """Something that changes when the main thread moves: where it is, and how many batches it began."""
        frame, places = sys._current_frames().get(self.main), []
        while frame is not None:
            places.append((id(frame.f_code), frame.f_lasti))
            frame = frame.f_back
        return (self.batches, *places)

    def _stop(self, trouble: UserError) -> None:
        """Write down where every thread stands, and leave: the main thread may never come back."""
        print(f"{trouble}; process {self.rank} stood here:", file=self.file, flush=True)
        faulthandler.dump_traceback(self.file, all_threads=True)
        print(f"unroll: error: rank {self.rank}: {trouble}; stacks in {self.directory}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        time.sleep(2 * self.interval)  # the others hear of it from the store, which this process may keep
        os._exit(trouble.exit_code)


def _key(rank: int) -> str:
    return f"watchdog/{rank}"
