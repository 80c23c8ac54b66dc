"""Online training that is stopped, rewound and continued is one W&B run without gaps or duplicates."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def unroll(home, *arguments, code=0, through=(), **environment):
    """Run a verb in a process of its own and return its output."""
    command = [*through, sys.executable, "-m", "pipeline", *arguments]
    given = {"cwd": home, "env": os.environ | environment, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=scaled(150), **given)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def fit(home, *arguments):
    """Run `unroll fit` on the run `small`."""
    return unroll(home, "fit", "--config", "small.yaml", "--run", "small", *arguments)


@pytest.fixture
def project(tiny_text_dataset, tmp_path, monkeypatch):
    """A directory with a config, from which the commands of this checkout run."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(path for path in (os.getcwd(), os.environ.get("PYTHONPATH")) if path)
    )
    (tmp_path / "small.yaml").write_text(CONFIG.format(dataset=tiny_text_dataset))
    return tmp_path


def test_a_rewound_run_is_one_run_and_no_file_holds_the_key(project, tmp_path, server, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "false")
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


@pytest.fixture
def anywhere(tiny_text_dataset, project):
    """A directory with config and dataset outside of pytest's, which only their owner can enter."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o777)
        shutil.copytree(tiny_text_dataset, home / "dataset")
        (home / "small.yaml").write_text(CONFIG.format(dataset=home / "dataset"))
        yield home


def nobody(home):
    """Return the start of a command for a user without a home directory and, where that is possible, a name."""
    user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    possible = os.geteuid() == 0 and shutil.which("setpriv")
    if possible:
        possible = subprocess.run([*user, sys.executable, "-c", ""], cwd=home, capture_output=True).returncode == 0
    return ["env", "-u", "HOME", *(user if possible else [])]


def test_every_row_arrives_once_from_a_run_of_nobody_in_spite_of_refusals_an_outage_and_a_deletion(anywhere, server):
    ours = {"WANDB_PROJECT": "ours", "WANDB_NAME": "shown", "WANDB_TAGS": "a,b", "WANDB_DIR": str(anywhere)}
    server.refuse = {"mutation CreateArtifact ": 403}
    command = ["--config", "small.yaml", "--run", "zażółć", "--trainer.devices", "1", "--tracking.project", "null"]
    output = unroll(
        anywhere, "fit", *command, "--trainer.max_steps", "8", through=nobody(anywhere), **ours, PYTHONUTF8="1"
    )
    assert "Traceback" not in output
    assert output.count("did not accept the artifact") == 1
    [identity] = server.rows
    losses = [row["step"] for row in server.rows[identity] if "train/loss" in row]
    assert losses == [2, 4, 6, 8]
    first = server.runs[0]
    assert (first["project"], first["displayName"], first["tags"]) == ("ours", "shown", ["a", "b"])
    assert list((anywhere / "wandb").glob(f"run-*-{identity}"))

    output = unroll(anywhere, "fit", *command, "--trainer.max_steps", "16", WANDB_BASE_URL="http://127.0.0.1:9")
    assert "rows of run zażółć have not arrived in Weights & Biases: `unroll sync 'zażółć'` sends them" in output
    server.refuse = {}
    unroll(anywhere, "sync", "zażółć")
    losses = [row["step"] for row in server.rows[identity] if "train/loss" in row]
    assert losses == [2, 4, 6, 8, 10, 12, 14, 16]
    sent = [made["artifactCollectionName"] for made in server.artifacts.values()]
    assert all(name.isascii() for name in sent)
    assert any(name.startswith("zazoc-checkpoint-") for name in sent)

    server.delete(identity)
    output = unroll(anywhere, "sync", "zażółć", code=2)
    assert output.splitlines()[-1].startswith(f"unroll: error: run zażółć: its W&B run ours/{identity} was deleted")
    assert "`unroll sync 'zażółć' --new-id`" in output
    unroll(anywhere, "sync", "zażółć", "--new-id")
    [rows] = server.rows.values()
    assert [row["step"] for row in rows if "train/loss" in row] == losses
