"""A server that stands in for Weights & Biases, and a run and its journal that need no training."""

import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from pipeline.runs.journal import JournalWriter
from pipeline.runs.run import Run
from tests.unit.tracking.server import Server, handler

KEY = "5ecre7" * 7  # of the form that an account's key has


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the client of this test speaks to, with a key."""
    said = Server()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler(said))
    listening.daemon_threads = True
    said.address = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    for name, value in {"BASE_URL": said.address, "API_KEY": KEY, "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield said
    said.hang = False
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone after the test
    yield
    wandb.teardown()


class Written:
    """A run directory, and a journal that a test writes as training would.

    Args:
        path: of the run.
    """

    def __init__(self, path: Path) -> None:
        self.run = Run(path)
        self.run.create()
        self.data = path.parent / "data"
        self.data.mkdir(exist_ok=True)
        (self.data / "dataset.json").write_text('{"splits": {"train": "sha256"}}')
        dataset = {"path": str(self.data), "checksum": "c0ffee"}
        self.run.write(wandb_id="id123456", git_commit="c0ffee", dataset=dataset, parameters=12)
        self.config()
        self.attempts = 0

    def config(self, **tracking: Any) -> None:
        """Write the config, with this of its tracking."""
        parts: dict[str, Any] = {"trainer": {}, "model": {}, "data": {}}
        parts["tracking"] = {"project": "unroll", **tracking}
        (self.run.path / "config.yaml").write_text(yaml.safe_dump(parts))

    def attempt(self, start: int) -> "Written":
        """Begin an attempt at step `start`."""
        self.attempts += 1
        JournalWriter(self.run.path).attempt(self.attempts, start)
        return self

    def rows(self, *steps: int) -> "Written":
        """Measure a loss at these steps: a hundredth of it, and the attempt."""
        journal = JournalWriter(self.run.path)
        for step in steps:
            journal.metrics(self.attempts, step, step * 8, step / 2, {"train/loss": step + self.attempts / 10})
        return self

    def samples(self, step: int) -> "Written":
        """Write a text."""
        JournalWriter(self.run.path).samples(self.attempts, step, 0, 0.0, [{"prompt": "p", "text": f"text {step}"}])
        return self

    def event(self, kind: str, step: int, **fields: Any) -> "Written":
        """Write a record of another kind."""
        JournalWriter(self.run.path).event(kind, self.attempts, step, 0, 0.0, fields)
        return self


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A run of two processes' worth of nothing: its directory and its journal."""
    return Written(tmp_path / "run")
