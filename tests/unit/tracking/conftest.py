"""A fake Weights & Biases server, and a run and journal that need no training."""

import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import wandb
import yaml

from pipeline.runs.journal import JournalWriter
from pipeline.runs.run import Run
from tests.unit.tracking.server import Server, handler

KEY = "5ecre7" * 7  # has the form of an account's API key


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server to which the client of this test connects, with an API key."""
    state = Server()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    listening.daemon_threads = True
    state.address = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    for name, value in {"BASE_URL": state.address, "API_KEY": KEY, "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield state
    state.hang = False
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    yield
    wandb.teardown()


class Written:
    """A run directory and a journal that a test writes as training does.

    Args:
        path: directory of the run.
    """

    def __init__(self, path: Path) -> None:
        self.run = Run(path)
        self.run.create()
        self.data = path.parent / "data"
        self.data.mkdir(exist_ok=True)
        (self.data / "dataset.json").write_text('{"splits": {"train": "sha256"}}')
        dataset = {"path": str(self.data), "checksum": "c0ffee"}
        source = {"from": {"run": "base", "step": 40}}
        self.run.write(wandb_id="id123456", git_commit="c0ffee", dataset=dataset, parameters=12, **source)
        self.config()
        self.attempts = 0

    def config(self, **tracking: object) -> None:
        """Write the config with these tracking settings."""
        parts: dict[str, object] = {"trainer": {}, "model": {}, "data": {}}
        parts["tracking"] = {"project": "unroll", **tracking}
        (self.run.path / "config.yaml").write_text(yaml.safe_dump(parts))

    def attempt(self, start: int) -> "Written":
        """Begin an attempt at step `start`."""
        self.attempts += 1
        JournalWriter(self.run.path).attempt(self.attempts, start)
        return self

    def rows(self, *steps: int) -> "Written":
        """Write rows at these steps, with a loss that encodes the step and the attempt."""
        journal = JournalWriter(self.run.path)
        for step in steps:
            journal.metrics(self.attempts, step, step * 8, step / 2, {"train/loss": step + self.attempts / 10})
        return self

    def samples(self, step: int) -> "Written":
        """Write a generated text."""
        JournalWriter(self.run.path).samples(self.attempts, step, 0, 0.0, [{"prompt": "p", "text": f"text {step}"}])
        return self

    def event(self, kind: str, step: int, **fields: object) -> "Written":
        """Write a record of another kind."""
        JournalWriter(self.run.path).event(kind, self.attempts, step, 0, 0.0, fields)
        return self


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A run without training: its directory and its journal."""
    return Written(tmp_path / "run")
