"""A run measures its speed: utilization, the time of each part of a step, kernels, and on request a profile."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from pipeline import cli
from pipeline.callbacks.step_clock import PARTS
from pipeline.commands.slurm import status
from pipeline.runs import journal
from pipeline.runs.run import Run

WIDTH, CONTEXT, BATCH = 16, 10, 4


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_text_dataset: Path) -> str:
    """The config of a small LSTM in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    settings = {
        "dataset": str(tiny_text_dataset),
        "context": CONTEXT,
        "global_batch_size": BATCH,
        "order": "contiguous",
    }
    made = {"class_path": "pipeline.models.lstm.LSTMLanguageModel", "init_args": {"width": WIDTH, "depth": 1}}
    data = {"class_path": "pipeline.data.text.TextDataModule", "init_args": settings}
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 8, "max_epochs": -1}
    trainer |= {"limit_val_batches": 0, "log_every_n_steps": 2}
    Path("a.yaml").write_text(yaml.safe_dump({"model": made, "data": data, "trainer": trainer}))
    return "a.yaml"


def weights(run: str) -> dict[str, Tensor]:
    """Return weights and optimizer state of the last checkpoint."""
    return load_file(f"runs/{run}/checkpoints/step-00000008/rank-00000.safetensors")


@pytest.mark.numeric
def test_a_run_records_utilization_parts_of_a_step_kernels_and_a_profile(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fit", "--config", config, "--run=plain"]) == 0
    rows = [row for row in journal.read_journal(Path("runs/plain")).rows if "time/step" in row]
    record: dict[str, Any] = Run(Path("runs/plain")).record
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    speed = record["speed"]
    gates = 3 * 4 * 2 * 2 * WIDTH**2  # forward and backward, four gates of two matrices
    first = 4 * 2 * WIDTH**2 / CONTEXT  # the initial state requires no gradient
    vocabulary = (record["parameters"] - 4 * (2 * WIDTH + 2) * WIDTH) / (WIDTH + 1)
    assert speed["flops_per_prediction"] == pytest.approx(gates - first + 3 * 2 * WIDTH * vocabulary)
    assert speed["peak_source"] == "measured"
    for row in rows:
        assert row["time/step"] == pytest.approx(sum(row[f"time/{part}"] for part in PARTS))
        assert min(row[f"time/{part}"] for part in ("data", "forward", "backward", "optimizer", "other")) > 0
        assert row["train/mfu"] == pytest.approx(
            row["train/tokens_per_second"] * speed["flops_per_prediction"] / speed["peak"]
        )
    trained = rows[-1]["seconds"] - rows[0]["seconds"]  # of three rows of two steps; a row is written within the next
    assert sum(2 * row["time/step"] for row in rows[1:]) == pytest.approx(trained, rel=0.5, abs=0.05)
    assert any(kernel.startswith("recurrence: ") for kernel in record["kernels"])
    capsys.readouterr()
    assert status.main(["plain"]) == 0
    printed = capsys.readouterr().out
    assert "kernels: recurrence: " in printed
    assert f"peak {speed['peak'] / 1e12:.3g} TFLOP/s (measured)" in printed

    assert cli.main(["fit", "--config", config, "--run=traced", "--trainer.max_steps=2"]) == 0
    assert cli.main(["fit", "--config", config, "--run=traced", "--profile=2"]) == 0  # continues the run
    printed = capsys.readouterr().out
    assert "operators of 2 steps" in printed
    assert "profile: runs/traced/profile/step-00000005-rank-00000.json.gz" in printed
    trace = json.loads(gzip.decompress(Path("runs/traced/profile/step-00000005-rank-00000.json.gz").read_bytes()))
    names = [event["name"] for event in trace["traceEvents"]]
    assert "aten::addmm" in names or "aten::mm" in names
    assert len({name for name in names if name.startswith("ProfilerStep#")}) == 2
    plain, traced = weights("plain"), weights("traced")
    assert plain.keys() == traced.keys()
    assert all(torch.equal(plain[name], traced[name]) for name in plain)
    assert "profile" not in yaml.safe_load(Path("runs/traced/config.yaml").read_text())


def test_a_run_that_ends_before_its_profile_says_so(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["--trainer.max_steps=2", "--profile=5"]
    assert cli.main(["fit", "--config", config, "--run=short", *keys]) == 0
    assert "profile: nothing recorded, as the run ended before its step 4" in capsys.readouterr().out
    assert list(Path("runs/short/profile").iterdir()) == []


def test_a_requeued_job_is_not_profiled_again(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert cli.main(["fit", "--config", config, "--run=again", "--profile=2"]) == 0
    assert not Path("runs/again/profile").exists()
