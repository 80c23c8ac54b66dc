"""A promoted trial is continued, and ends with the weights and the optimizer of one run of the same length."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipeline.commands import planned_runs
from pipeline.commands.tune import command as tune
from tests.distributed.conftest import start_fork

LR = "model.init_args.optimizer.init_args.lr"


@pytest.fixture
def home(tmp_path: Path, corpus: Path) -> Path:
    """Create a directory with an experiment whose learning rate warms up and decays over the whole run."""
    data = {"class_path": "pipeline.data.text.TextDataModule", "init_args": {"dataset": str(corpus), "context": 8}}
    schedule = {"class_path": "pipeline.optim.WarmupCosine", "init_args": {"warmup_share": 0.2}}
    settings = {"width": 8, "depth": 1, "dropout": 0.1, "schedule": schedule}
    model = {"class_path": "pipeline.models.gru.GRULanguageModel", "init_args": settings}
    trainer = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 5}
    (tmp_path / "gru.yaml").write_text(yaml.safe_dump({"model": model, "data": data, "trainer": trainer}))
    return tmp_path


@pytest.mark.slow
def test_a_promoted_trial_ends_as_one_run_of_the_same_length(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(planned_runs, "run_unroll", lambda words, device: start_fork([*words], Path("log")))
    monkeypatch.setattr("pipeline.distributed.signals.install", lambda: None)
    over = f"{LR}=log:1e-3:1e-2:4"
    assert tune.main(["gru.yaml", "--over", over, "--budget", "steps=24"]) == 0
    result = json.loads(Path("tuned/gru.json").read_text())
    assert result["rungs"] == [{"trials": 4, "steps": 3}, {"trials": 2, "steps": 9}]
    [best] = [each for each in result["trials"] if each["values"] == result["best"]]
    assert [each["start_step"] for each in json.loads((Path(best["run"]) / "run.json").read_text())["attempts"]] == [
        0,
        3,
    ]
    whole = ["fit", "--config", "gru.yaml", "--config", "tuned/gru.yaml", "--run", "whole", "--trainer.max_steps", "9"]
    assert start_fork(whole, Path("log")) == 0
    name = "checkpoints/step-00000009/rank-00000.safetensors"
    ours, theirs = load_file(Path(best["run"]) / name), load_file(Path("runs/whole") / name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
