"""Reports what the transfer of a run waits for, as the client prints nothing while it repeats its requests."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.runs.run import Run
from pipeline.tracking.arrivals import missing_rows, received
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import server
from pipeline.tracking.wandb_session import end_client

QUIET, PAUSE = 4.0, 15.0  # seconds before the first line, and between two lines
AT_ONCE = 3.0  # seconds for the server's answer


class Progress:
    """A thread that prints a line from time to time and ends the client if nothing arrives for too long.

    Args:
        run: the run.
        patience: seconds in which the server must receive something.
    """

    def __init__(self, run: Run, patience: float) -> None:
        self.run, self.patience = run, patience
        self._given_up = ""
        self._done = threading.Event()

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Report until the transfer ends.

        Raises:
            TimeoutError: nothing arrived for too long.
        """
        threading.Thread(target=self._report, daemon=True).start()
        try:
            yield
        except Exception as error:
            if self._given_up:
                raise TimeoutError(self._given_up) from error
            raise
        finally:
            self._done.set()

    def _report(self) -> None:
        best, moved, pause = -1, time.monotonic(), QUIET
        while not self._done.wait(pause):
            line, state = self._ask()
            if line > best:
                best, moved = line, time.monotonic()
            left = missing_rows(self.run)
            what = f"{left} rows are left" if left else "all rows have arrived, artifacts are left"
            print(f"run {self.run.name}: waiting for {server()}, {what}{state}", flush=True)
            if left and time.monotonic() - moved > self.patience:
                self._given_up = f"the server received nothing for {self.patience:.0f} s{state}"
                end_client()
                return
            pause = PAUSE

    def _ask(self) -> tuple[int, str]:
        try:
            return received(self.run, AT_ONCE), ""
        except Exception as error:
            return -1, f": {error_line(error)}"
