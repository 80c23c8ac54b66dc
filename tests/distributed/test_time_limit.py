"""A run with a time limit: a stop changes no step, and the time before it counts."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.callbacks.train_metrics import Monitor
from pipeline.runs.journal import read_journal
from tests.distributed.fixture_types import Fit


@pytest.fixture
def _quarters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each step take a quarter of a second, independent of the machine."""
    clock, end = [0.0], Monitor.on_train_batch_end

    def tick(self: Monitor, *given: object) -> None:
        clock[0] += 0.25
        end(self, *given)

    monkeypatch.setattr(Monitor, "on_train_batch_end", tick)
    monkeypatch.setattr("pipeline.callbacks.train_metrics.time", SimpleNamespace(perf_counter=lambda: clock[0]))


@pytest.mark.usefixtures("_quarters")
def test_a_stopped_run_has_only_the_rest_of_its_time(fit: Fit, tmp_path: Path) -> None:
    keys = ["trainer.max_steps", -1, "trainer.max_time", '{"seconds": 2}', "trainer.log_every_n_steps", 1]
    assert fit("straight", *keys) == 0
    assert fit("cut", *keys, die=(signal.SIGTERM, 3)) == 75
    assert fit("cut", *keys) == 0
    straight, cut = (read_journal(tmp_path / "runs" / name).series("train/loss") for name in ("straight", "cut"))
    assert straight.seconds == [0.25 * step for step in range(1, 9)]
    assert straight == cut
    attempts = json.loads((tmp_path / "runs" / "cut" / "run.json").read_text())["attempts"]
    assert [attempt["start_step"] > 0 for attempt in attempts] == [False, True]
    assert fit("cut", *keys) == 0
    assert len(json.loads((tmp_path / "runs" / "cut" / "run.json").read_text())["attempts"]) == 2
