"""A tournament stopped during a run is completed by the same command, and each run is trained once."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from pipeline.errors import TRY_AGAIN
from tests.distributed.conftest import begin_fork, end_of_fork, start_fork


@pytest.fixture
def home(tmp_path: Path, corpus: Path) -> Path:
    """Create a directory with a tournament of one experiment and two seeds, long enough to be stopped."""
    data = {"class_path": "pipeline.data.text.TextDataModule", "init_args": {"dataset": str(corpus), "context": 8}}
    model = {"class_path": "pipeline.models.gru.GRULanguageModel", "init_args": {"width": 8, "depth": 1}}
    trainer = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 5}
    (tmp_path / "gru.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    rare = {"trainer.val_check_interval": 1000, "trainer.check_val_every_n_epoch": None}
    file = {"entrants": {"gru": "gru.yaml"}, "settings": rare, "budget": {"tokens": 40_000}, "seeds": [1, 2]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(file))
    return tmp_path


def attempts(home: Path, name: str) -> list[tuple[str, bool]]:
    """Return how each attempt of a run ended, and whether it began at the first step."""
    record = json.loads((home / "runs" / "small" / name / "run.json").read_text())
    return [(attempt["reason"], attempt["start_step"] == 0) for attempt in record["attempts"]]


@pytest.mark.slow
def test_a_stopped_tournament_continues(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    first = begin_fork(["tournament", "small.yaml"], Path("log"))
    journal = Path("runs/small/gru-1/journal.jsonl")
    while not (journal.is_file() and "train/loss" in journal.read_text()):
        time.sleep(0.05)
    os.kill(first, signal.SIGTERM)
    assert end_of_fork(first) == TRY_AGAIN
    assert "tournament small stopped; the same command continues it" in Path("log").read_text()
    assert start_fork(["tournament", "small.yaml"], Path("log")) == 0
    assert attempts(home, "gru-1") == [("stopped", True), ("finished", False)]
    assert attempts(home, "gru-2") == [("finished", True)]
    assert (home / "runs" / "small" / "compare.html").is_file()
