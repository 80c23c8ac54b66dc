"""Recall tasks are evaluated by the accuracy of answers, compared with chance."""

import json
from pathlib import Path

import pytest
import torch

from pipeline import cli
from pipeline.data.batch import IGNORE
from pipeline.models.lstm import LSTM
from pipeline.tasks.recall import Recaller

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.numeric
def test_only_answers_are_counted():
    torch.manual_seed(0)
    task = Recaller(LSTM(width=8, depth=1), 7)
    outputs, targets = torch.randn(2, 5, 8), torch.full((2, 5), IGNORE)
    predicted = task.output(outputs).argmax(-1)
    targets[0, 1:3] = predicted[0, 1:3]
    targets[1, 4] = (predicted[1, 4] + 1) % 7
    task.count_held_out(outputs, targets)
    assert float(task.accuracy.compute()) == pytest.approx(2 / 3)
    task.count_held_out(outputs, targets)
    assert int(task.accuracy.predictions) == 6


@pytest.mark.slow
@pytest.mark.learns
def test_a_run_learns_a_short_copy_and_prints_chance(
    tiny_recall_dataset, tmp_path, monkeypatch, capsys, seed, record_property
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    experiment = ["--config", str(CONFIGS / "recall/transformer.yaml"), "--config", str(CONFIGS / "run/cpu.yaml")]
    sizes = ["--data.init_args.dataset", str(tiny_recall_dataset), "--trainer.max_steps", "120", "--run", "copy"]
    often = ["--trainer.val_check_interval", "120", "--model.init_args.optimizer.init_args.lr", "0.01"]
    assert cli.main(["fit", *experiment, *sizes, *often, "--seed_everything", str(seed)]) == 0
    rows = [json.loads(line) for line in Path("runs/copy/journal.jsonl").read_text().splitlines()]
    [found] = [row for row in rows if "val/accuracy" in row]
    record_property("result", found["val/accuracy"])
    assert found["val/accuracy"] > 50  # chance is 25; ten seeds: 100 ± 0
    assert "val/bits_per_byte" not in found
    [samples] = [row["samples"] for row in rows if row["kind"] == "samples"]
    assert len(samples[0]["text"].split()) == 3
    assert samples[0]["prompt"].split()[3:] == ["-"] * 5
    capsys.readouterr()
    assert cli.main(["test", "--run", "copy"]) == 0
    assert "without memory, accuracy: 25.0000" in capsys.readouterr().out
