"""`verify-resume` detects state that is not restored and experiments that are not deterministic."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule

from pipeline.commands.verify_resume.command import main
from pipeline.commands.verify_resume.trial import Start, Trial, start_process
from pipeline.errors import ConfigError


class Forgetful(Callback):
    """A callback that changes a weight by the steps of this attempt, a state that is in no checkpoint."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, trainer: object, pl_module: LightningModule, *rest: object) -> None:
        self.steps += 1
        with torch.no_grad():
            pl_module.output.bias[0] += 1e-3 * self.steps


class Unsteady(Callback):
    """A callback that changes a weight by a different number in each run."""

    def on_train_batch_start(self, trainer: object, pl_module: LightningModule, *rest: object) -> None:
        with torch.no_grad():
            pl_module.output.bias[0] += os.urandom(1)[0] * 1e-3 + 1e-6 * os.getpid()


@pytest.fixture
def config(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create the config of a small LSTM in a temporary working directory."""
    monkeypatch.chdir(tmp_path)
    experiment: dict[str, object] = {
        "model": {
            "class_path": "pipeline.models.lstm.LSTMLanguageModel",
            "init_args": {"width": 16, "dropout": 0.2},
        },
        "data": {
            "class_path": "pipeline.data.text.TextDataModule",
            "init_args": {"dataset": str(corpus), "order": "contiguous", "context": 16, "global_batch_size": 16},
        },
        "trainer": {"accelerator": "cpu", "devices": 1},
    }
    (tmp_path / "experiment.yaml").write_text(json.dumps(experiment))
    return "experiment.yaml"


@pytest.mark.slow
def test_a_sound_experiment_is_equal_on_one_process_and_on_two(
    config: str, fork: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = ["--data.init_args.per_device_batch_size", "4", "--world-sizes", "1,2", "--random", "2"]
    assert main([config, *keys, "--output", "runs"], fork) == 0
    printed = capfd.readouterr().out
    stops = re.findall(r"^  (\w+)  +(.*)$", printed, flags=re.MULTILINE)
    assert {verdict for verdict, _ in stops} == {"equal"}
    assert f"EQUAL: all {len(stops)}" in printed
    assert len(stops) == 2 * (1 + 10 + 2) + 1
    for moment in ("SIGTERM to", "SIGKILL to", "micro-batch 2", "in the validation", "while it saves", "process 1"):
        assert any(moment in stop for _, stop in stops)
    assert "moved from 2 processes to 1 and back" in printed
    apart = re.search(r"at most ([0-9.e-]+) \(by rounding", printed)
    assert apart is not None
    assert float(apart[1]) < 0.1


def test_a_lost_state_is_detected(config: str, fork: Start, capfd: pytest.CaptureFixture[str]) -> None:
    lossy = json.dumps({"class_path": f"{__name__}.Forgetful"})
    arguments = [config, "--random", "0", "--steps", "8", f"--trainer.callbacks=[{lossy}]", "--output", "kept"]
    arguments.append("--checkpoints.background=false")  # so that the last checkpoint before a kill is deterministic
    assert main(arguments, fork) == 1
    printed = capfd.readouterr().out
    assert "equal    nothing (run twice)" in printed
    stop = "  DIFFERS  SIGTERM to process 0 before step 5, resumed at step 5\n           step 7, process 0: loss"
    assert stop in printed
    assert "NOT EQUAL: 7 of 9; the runs are kept in kept" in printed
    assert Path("kept/on-1/straight/run.json").is_file()


def test_a_nondeterministic_experiment_is_reported(config: str, fork: Start, capfd: pytest.CaptureFixture[str]) -> None:
    unsteady = json.dumps({"class_path": f"{__name__}.Unsteady"})
    assert main([config, "--steps", "8", f"--trainer.callbacks=[{unsteady}]", "--output", "kept"], fork) == 1
    printed = capfd.readouterr().out
    assert "DIFFERS  nothing (run twice)\n           step 1, process 0: loss" in printed
    assert "two uninterrupted runs differ" in printed
    assert "SIGTERM" not in printed


def test_a_stop_that_did_not_happen_is_no_proof(config: str, try_out: Callable[..., Trial]) -> None:
    from pipeline.callbacks.fault_injection import WhileSaving
    from pipeline.commands.verify_resume.interruption_points import KILL, Lengths

    trial = try_out(Lengths.of(8))
    outcome = trial.stopped("unstopped", [WhileSaving(KILL, 0, step=5)])  # step 5 has no checkpoint
    assert outcome.difference.startswith("exit code 0, expected 137")


def test_what_cannot_be_tried_is_one_clear_error(config: str, fork: Start, tmp_path: Path) -> None:
    for keys, message in (
        (["--steps", "7"], "--steps=7: expected at least 8"),
        (["--world-sizes", "3"], "global_batch_size=16 cannot be divided among 3 processes"),
        (["--output", "."], "already exists"),
        (
            ["--data.init_args.global_batch_size=4000", "--output", "out"],
            "uninterrupted run fails with exit code 2: .*fewer than",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            main([config, *keys], fork)
    log = tmp_path / "log"
    assert start_process(["fit", "--config=nowhere.yaml"], log) == 2  # as the verb starts them
    assert "nowhere.yaml" in log.read_text()
