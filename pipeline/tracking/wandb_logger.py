"""A Weights & Biases logger that never blocks training: a thread reads the journal and sends new lines.

A slow or unreachable server therefore costs training nothing. Lines held back by an outage or a kill are sent later,
because the journal has them all.
"""

import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from pipeline.distributed.launch import started_elsewhere
from pipeline.runs.run import Run
from pipeline.tracking.arrivals import Gone, known, missing_rows, received, sync_line
from pipeline.tracking.graphql import ServerError
from pipeline.tracking.journal_sync import Mirror, refused_lines
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import DISABLED, OFFLINE, ONLINE, record_variables, tracking_mode, tracking_of
from pipeline.tracking.shipping import Shipping
from pipeline.tracking.wandb_payloads import Messages
from pipeline.tracking.wandb_session import FINISH, check_settings, end_client, session

PACE = 1.0  # seconds between two reads of the journal
CHECK = 30.0  # seconds between two questions to the server what arrived
WAIT, LONGEST = 60.0, 960.0  # seconds to wait after a failure, doubled with each further one
SHIPPING = 4.0  # seconds that the end of an attempt waits for the server's answer to artifacts
LEAVING = FINISH + SHIPPING + 2.0  # seconds that the end of an attempt waits for the client
ANSWER = 3.0  # seconds for the server's last answer at the end of an attempt
UPLOADING = 3600.0  # the same if the run has finished and files are still to be uploaded
TOGETHER = 35.0  # the same where the cluster kills a process that outlives the others by a minute


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
        self._stuck = self._gone = False  # an artifact blocks the client's end; the W&B run was deleted
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._shipping: Shipping | None = None
        self._silent = False  # after the first warning
        self._rejected: Counter[int] = Counter()  # rejections per line of the journal

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
        """Send the rest and close the client's run within a time limit; report the rows that did not arrive."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._leave(thread, exit_code)
        except Exception as error:  # the exit code of the training counts, not that of its tracking
            self._warn(f"Weights & Biases: {error_line(error)}. `{sync_line(self.run)}` sends what is missing")

    def _leave(self, thread: threading.Thread, exit_code: int) -> None:
        self.exit_code = exit_code
        self._ending.set()
        self._wake.set()
        thread.join(LEAVING if exit_code else max(LEAVING, self.uploading + FINISH))
        if thread.is_alive():
            self._silent = True
            if self._shipping is not None:
                self._shipping.close(0)
            end_client()  # it would delay the exit of this process until its server responds
            thread.join(2.0)
            with suppress(Exception):  # the server still does not respond
                received(self.run, ANSWER)
        if self.mode == ONLINE and not self._gone and (missing := missing_rows(self.run)):
            warnings.warn(
                f"{missing} rows of run {self.run.name} have not arrived in Weights & Biases: "
                f"`{sync_line(self.run)}` sends them",
                stacklevel=2,
            )
        if refused := refused_lines(self._rejected):
            warnings.warn(
                f"the W&B client rejected {len(refused)} rows of run {self.run.name}, which only the journal has: "
                f"lines {', '.join(map(str, refused[:10]))}",
                stacklevel=2,
            )

    def _work(self) -> None:
        wait = WAIT / 2
        while True:
            before, last_try = known(self.run).line, self._ending.is_set()
            try:
                if self._send():
                    return
            except Gone as error:
                self._gone = True
                warnings.warn(
                    f"Weights & Biases gets no more rows of run {self.run.name}, training continues: {error}",
                    stacklevel=2,
                )
                return
            except Exception as error:
                self._warn(
                    "Weights & Biases is behind; training and the journal continue, and "
                    f"`{sync_line(self.run)}` sends the missing lines: {error_line(error)}"
                )
            if last_try:
                return
            wait = WAIT if known(self.run).line > before else min(2 * wait, LONGEST)
            self._ending.wait(wait)

    def _send(self) -> bool:
        """Send rows until the attempt ends; return whether all of them have arrived."""
        with session(self.run, self.mode, self._rejected, ships=not self._stuck) as (mirror, messages):
            self._shipping = messages.shipping
            self._follow(mirror, messages)
            self._stuck = messages.shipping is not None and not messages.shipping.close(self.uploading or SHIPPING)
            messages.client.finish(exit_code=self.exit_code)
        if self.mode == OFFLINE:
            return True
        received(self.run)
        return not missing_rows(self.run)

    def _follow(self, mirror: Mirror, messages: Messages) -> None:
        mirror.follow(messages.send)
        if self.mode == ONLINE and messages.shipping is not None:
            messages.shipping.introduce()
        checked, expected = time.monotonic(), 0
        while True:
            ending = self._ending.is_set()
            mirror.follow(messages.send)
            if ending:
                return
            if self.mode == ONLINE and time.monotonic() - checked > CHECK:
                self._check_arrivals(expected)
                checked, expected = time.monotonic(), mirror.last
            self._wake.wait(CHECK)
            self._wake.clear()
            self._ending.wait(PACE)

    def _check_arrivals(self, expected: int) -> None:
        """Raise if rows up to line `expected`, sent long ago, do not arrive: the client does not report it."""
        before = known(self.run).line
        try:
            line = received(self.run)
        except ServerError as error:
            if error.rejected:
                raise
            return  # a slow or busy server; the next question may be answered
        if line < expected and line <= before:
            raise TimeoutError(f"the server has not received rows that were sent {CHECK:.0f} s ago")

    def _warn(self, message: str) -> None:
        if not self._silent:
            warnings.warn(message, stacklevel=2)
        self._silent = True


def wandb_logger(run: Run) -> PatientWandbLogger | None:
    """Return the W&B logger of a run; None if WANDB_MODE=disabled or wandb is not installed."""
    mode = tracking_mode()
    record_variables(run)
    if mode == DISABLED:
        return None
    if find_spec("wandb") is None:
        warnings.warn("wandb is not installed: the run is recorded in its journal only", stacklevel=2)
        return None
    check_settings(run)
    return PatientWandbLogger(run, mode)
