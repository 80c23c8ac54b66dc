"""Online training that is stopped, rewound and continued is one W&B run without gaps or duplicates."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.timeouts import scaled

pytestmark = pytest.mark.slow

CONFIG = """
model:
  class_path: pipeline.models.lstm.LSTMLanguageModel
  init_args: {{width: 8}}
data:
  class_path: pipeline.data.text.TextDataModule
  init_args: {{dataset: {dataset}, order: contiguous, context: 8, global_batch_size: 8}}
trainer:
  {{accelerator: cpu, devices: 2, log_every_n_steps: 2, val_check_interval: 4, check_val_every_n_epoch: null}}
checkpoints: {{every_steps: 4}}
tracking: {{project: p, gradients: 4}}
"""


def unroll(home, *arguments):
    """Run a verb in a process of its own and return its output."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=scaled(150))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fit(home, *arguments):
    """Run `unroll fit` on the run `small`."""
    return unroll(home, "fit", "--config", "small.yaml", "--run", "small", *arguments)


def test_a_rewound_run_is_one_run_and_no_file_holds_the_key(tiny_text_dataset, tmp_path, server, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(path for path in (os.getcwd(), os.environ.get("PYTHONPATH")) if path)
    )
    monkeypatch.setenv("WANDB_SILENT", "false")
    (tmp_path / "small.yaml").write_text(CONFIG.format(dataset=tiny_text_dataset))
    output = fit(tmp_path, "--trainer.max_steps", "12")
    run = tmp_path / "runs" / "small"
    unroll(tmp_path, "sync", "small")  # sends what a busy machine had no time for
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    output += fit(tmp_path, "--trainer.max_steps", "16")
    assert "wandb" not in output.lower()

    [rows] = server.rows.values()
    assert list(server.rows) == [json.loads((run / "run.json").read_text())["wandb_id"]]
    losses = [row["step"] for row in rows if "train/loss" in row]
    assert losses == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [row["step"] for row in rows if "val/loss" in row] == [4, 8, 12, 16]
    assert [row["attempt"] for row in rows if "train/loss" in row] == [1] * 6 + [2] * 2
    assert [row["step"] for row in rows if "samples" in row] == [4, 8, 12, 16]
    assert [row["step"] for row in rows if "gradients/head.bias" in row or "gradients/embedding.weight" in row] == [
        4,
        8,
        12,
        16,
    ]
    assert all("system/cpu" in row for row in rows if "train/loss" in row)
    kinds = {one["artifactTypeName"] for one in server.artifacts.values()}
    assert {"dataset", "checkpoint"} <= kinds

    key = b"5ecre7" * 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if key in path.read_bytes()] == []
    assert [body for body in server.bodies if key in body] == []
    assert "5ecre7" not in output
