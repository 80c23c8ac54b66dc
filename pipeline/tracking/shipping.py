"""Sends the artifacts of a run, one after another in a thread of its own: none of them can delay or end the rows."""

import queue
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pipeline.runs.journal import FILE, parse_line
from pipeline.runs.run import Run
from pipeline.tracking import artifacts
from pipeline.tracking.journal_sync import Record
from pipeline.tracking.redact import error_line

if TYPE_CHECKING:
    from wandb import Artifact
    from wandb import Run as ClientRun

    Make = Callable[[], Artifact | None]
    Log = Callable[[Artifact], Artifact]


class Shipping:
    """A queue of artifacts and the thread that sends them.

    Args:
        client: the object that `wandb.init` returned.
        run: the run of the artifacts.
        upload: upload the files of checkpoints and models, not only references.
        online: whether to wait for the server's answer to each artifact.
    """

    def __init__(self, client: "ClientRun", run: Run, upload: bool, online: bool) -> None:
        self.client, self.run, self.upload, self.online = client, run, upload, online
        self._waiting: queue.SimpleQueue[tuple[str, Make, Log] | None] = queue.SimpleQueue()
        self._silent = False  # after the first warning
        self._thread = threading.Thread(target=self._work, name="wandb-artifacts", daemon=True)
        self._thread.start()

    def introduce(self) -> None:
        """Declare the dataset and the code of the run."""
        self._put("the dataset", lambda: artifacts.dataset(self.run), self.client.use_artifact)
        self._put("the code", lambda: artifacts.code(self.run), self.client.log_artifact)

    def publish(self, record: Record) -> None:
        """Send the checkpoint or model of a journal record; without effect if its files are missing by then."""
        log = partial(self.client.log_artifact, aliases=record.get("aliases", ["last"]))
        self._put(record["path"], lambda: artifacts.published(self.run, record, self.upload), log)

    def publish_all(self) -> None:
        """Send the last and the best checkpoint and the exported models, even if sent before."""
        newest: dict[str, Record] = {}
        for line in (self.run.path / FILE).read_bytes().splitlines():
            record = parse_line(line)
            if record is not None and record["kind"] == "checkpoint":
                newest |= dict.fromkeys(record["aliases"], record)
            if record is not None and record["kind"] == "model":
                newest[record["path"]] = record
        for record in {record["path"]: record for record in newest.values()}.values():
            self.publish(record)

    def close(self, seconds: float | None) -> bool:
        """Wait until all artifacts are sent; return False if that takes longer than `seconds`."""
        self._waiting.put(None)
        until = None if seconds is None else time.monotonic() + seconds
        while self._thread.is_alive() and (until is None or time.monotonic() < until):
            self._thread.join(0.2)
        self._silent = True  # the client ends
        return not self._thread.is_alive()

    def _put(self, name: str, make: "Make", log: "Log") -> None:
        self._waiting.put((name, make, log))

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            name, make, log = waiting
            try:
                self._send(make(), log)
            except Exception as error:
                if not self._silent:
                    warnings.warn(
                        f"Weights & Biases did not accept the artifact of {name}; the rows continue, and further "
                        f"artifacts are tried without a warning: {error_line(error)}",
                        stacklevel=2,
                    )
                self._silent = True

    def _send(self, artifact: "Artifact | None", log: "Log") -> None:
        if artifact is None:
            return
        logged = log(artifact)
        if self.online:
            logged.wait()  # one at a time, so a slow network does not fill the disk with copies
