"""A tournament with `tune` finds the values of each entrant first, uses them in its runs and reports the cost."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pipeline.commands.compare import command as compare
from pipeline.commands.tournament import command as tournament
from pipeline.commands.tournament.entrants import entrants_of, read_tournament
from pipeline.distributed import signals
from pipeline.training.config import parse_config

SUBMISSION = ["small.yaml", "--submit", "--time", "1:00:00", "--dry-run"]
LR = "model.init_args.optimizer.init_args.lr"
MODELS = {"lstm": "pipeline.models.lstm.LSTMLanguageModel", "rnn": "pipeline.models.rnn.RNNLanguageModel"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text_dataset: Path) -> Path:
    """A working directory with a tournament of two entrants, one run and two trials each."""
    monkeypatch.chdir(tmp_path)
    for name, model in MODELS.items():
        settings = {"dataset": str(tiny_text_dataset), "context": 10, "global_batch_size": 4, "order": "contiguous"}
        data = {"class_path": "pipeline.data.text.TextDataModule", "init_args": settings}
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}}
        made = {"class_path": model, "init_args": {"width": 8, "depth": 1, "optimizer": optimizer}}
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"model": made, "data": data}))
    Path("cpu.yaml").write_text("trainer: {accelerator: cpu, devices: 1}\n")
    file = {
        "entrants": {name: f"{name}.yaml" for name in MODELS},
        "overlays": ["cpu.yaml"],
        "budget": {"tokens": 170},
        "tune": {"over": {LR: [0.003, 0.01]}, "budget": {"steps": 4}},
    }
    Path("small.yaml").write_text(yaml.safe_dump(file))
    monkeypatch.setattr(signals, "install", lambda: None)
    monkeypatch.setattr(compare, "main", lambda runs: 0)
    return tmp_path


def test_entrants_are_tuned_first_and_run_with_their_best_values(
    trained: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tournament.main(["small.yaml"]) == 0
    assert trained == [("trial-1", 2), ("trial-2", 2)] * 2 + [("lstm-1", 4), ("rnn-1", 4)]
    for run in ("lstm-1", "rnn-1"):
        assert parse_config(["--config", f"runs/small/{run}/config.yaml"]).config[LR] == 0.01
    report = json.loads(Path("runs/small/tuning.json").read_text())
    assert report["entrants"]["rnn"]["values"] == {LR: 0.01}
    flops = [each.flops_per_token for each in entrants_of(read_tournament(Path("small.yaml")))]
    assert report["tuning"] == {"trials": 4, "tokens": 320, "flops": 160 * sum(flops), "seconds": 16.0}
    assert report["total"] == {"trials": 6, "tokens": 640, "flops": 320 * sum(flops), "seconds": 32.0}
    assert "with the runs of the tournament: 6 trials, 640 tokens" in capsys.readouterr().out
    assert Path("runs/small/tuning/lstm.svg").exists()
    file = yaml.safe_load(Path("small.yaml").read_text())
    Path("small.yaml").write_text(yaml.safe_dump(file | {"seeds": [1, 2]}))
    assert tournament.main(SUBMISSION) == 0
    assert re.findall(rf"--{LR} (\S+) --run (\S+)", capsys.readouterr().out) == [
        ("0.01", "runs/small/lstm-2"),
        ("0.01", "runs/small/rnn-2"),
    ]


def test_trials_are_submitted_before_the_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert tournament.main(SUBMISSION) == 0
    assert re.findall(r"--run (\S+)", capsys.readouterr().out) == [
        f"runs/small/tuning/{name}/trial-{k}" for name in MODELS for k in (1, 2)
    ]
