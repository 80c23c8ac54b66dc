"""A Weights & Biases logger that never blocks training: a thread reads the journal and sends new lines.

A slow or unreachable server therefore costs training nothing. Lines held back by an outage or a kill are sent later,
because the journal has them all.
"""

import os
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from pipeline.distributed.launch import started_elsewhere
from pipeline.runs.run import Run
from pipeline.tracking.journal_sync import Mirror
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import DISABLED, ONLINE, tracking_mode, tracking_of
from pipeline.tracking.wandb_payloads import Messages
from pipeline.tracking.wandb_session import FINISH, session

PACE = 1.0  # seconds between two reads of the journal
WAIT, LONGEST = 60.0, 960.0  # seconds to wait after a failure, doubled with each further one
LEAVING = FINISH + 5.0  # seconds that the end of an attempt waits for the client
UPLOADING = 3600.0  # the same if the run has finished and files are still to be uploaded
TOGETHER = 45.0  # the same where the cluster kills a process that outlives the others by a minute


class PatientWandbLogger(Logger):
    """Signals the thread that sends new lines of the journal.

    Args:
        run: the run.
        mode: online or offline; offline, the client writes files with this attempt's lines.
    """

    def __init__(self, run: Run, mode: str) -> None:
        super().__init__()
        import wandb  # noqa: F401  # here, not in the thread: forked workers must not inherit its import lock

        self.run, self.mode = run, mode
        self.exit_code = 0
        sends = tracking_of(run).upload
        self.uploading = (TOGETHER if started_elsewhere() else UPLOADING) if sends else 0.0
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run.name

    @property
    def version(self) -> str:
        """The W&B id, shared by all attempts."""
        return str(self.run.record["wandb_id"])

    def start_attempt(self, number: int, step: int) -> None:
        """Begin to follow the journal, which already contains attempt `number`."""
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Signal that the journal has new lines."""
        self._wake.set()

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Do nothing: the client sends the whole config when its run starts."""

    def finish(self, exit_code: int = 0) -> None:
        """Send the rest and close the client's run within a time limit; `unroll sync` can send what remains."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.exit_code = exit_code
        self._ending.set()
        self._wake.set()
        bound = LEAVING if exit_code else max(LEAVING, self.uploading)
        thread.join(bound)
        if thread.is_alive():
            self._warn(TimeoutError(f"the client did not finish within {bound:.0f} s"))
            end_client()  # it would delay the exit of this process until its server responds
            thread.join(2.0)

    def _work(self) -> None:
        wait, rejected, patience = WAIT, Counter[int](), max(FINISH, self.uploading)
        while True:
            try:
                with session(self.run, self.mode, rejected, finish_timeout=patience) as (mirror, messages):
                    self._follow(mirror, messages)
                return
            except Exception as error:
                self._warn(error)
            if self._ending.wait(wait):
                return
            wait = min(2 * wait, LONGEST)

    def _follow(self, mirror: Mirror, messages: Messages) -> None:
        mirror.follow(messages.send)
        if self.mode == ONLINE:
            messages.introduce()
        while True:
            ending = self._ending.is_set()
            mirror.follow(messages.send)
            if ending:
                messages.client.finish(exit_code=self.exit_code)
                return
            self._wake.wait()
            self._wake.clear()
            self._ending.wait(PACE)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            warnings.warn(
                "Weights & Biases is behind; training and the journal continue, and "
                f"`unroll sync {self.run.name}` sends the missing lines: {error_line(error)}",
                stacklevel=2,
            )
        self._warned = True


def wandb_logger(run: Run) -> PatientWandbLogger | None:
    """Return the W&B logger of a run; None if WANDB_MODE=disabled or wandb is not installed."""
    mode = tracking_mode()
    if mode == DISABLED:
        return None
    if find_spec("wandb") is None:
        warnings.warn("wandb is not installed: the run is recorded in its journal only", stacklevel=2)
        return None
    return PatientWandbLogger(run, mode)


def end_client() -> None:
    """Kill the client's process, a child of this one, where /proc identifies it."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{child}/exe").readlink().name == "wandb-core":
                    os.kill(int(child), signal.SIGKILL)
