"""Runs on sounds that are changed in training continue exactly, and any number of processes learns the same."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.test_pairs import assert_equal

Fit = Callable[..., int]
State = Callable[[str], dict[str, Any]]
CONFIG = """
model:
  class_path: pipeline.{model}
  init_args: {{{network}, optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}}}}
data:
  class_path: pipeline.data.{data}
"""
SOUNDS = """audio.AudioDataModule
  init_args: {{dataset: {dataset}, global_batch_seconds: 8,
    augmentation: {{shift: 0.05, gain: 6, noise: 15, speed: 0.2, time_masks: 1, mel_masks: 1}}}}
"""
WAVENET = "network: {class_path: pipeline.models.conv.ConvNet, init_args: {width: 16, depth: 4}}"
WAVES = """raw_audio.WaveDataModule
  init_args: {{dataset: {dataset}, order: contiguous, context: 64, global_batch_size: 8, labels: true}}
"""


@pytest.fixture
def hear(fit: Fit, tiny_audio_dataset: Path, tiny_labels_dataset: Path, tmp_path: Path) -> Fit:
    """`hear(RUN, KEY, VALUE, ..., model=MODULE.NAME)` is `fit` for a transcriber, a classifier or a model of waves."""

    def hear(run: str, *overrides: Any, model: str, exact: bool = False, **rest: Any) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        dataset = tiny_audio_dataset if "transcribers" in model else tiny_labels_dataset
        waves = model.endswith("WaveModel")
        data = (WAVES if waves else SOUNDS).format(dataset=dataset)
        network = WAVENET if waves else f"width: 16, depth: 1, dropout: {dropout}"
        config = CONFIG.format(model=model, network=network, optimizer=optimizer, data=data)
        (tmp_path / f"{model.rsplit('.', 1)[1]}.yaml").write_text(config)
        return fit(run, *overrides, model=f"pipeline.{model}", **rest)

    return hear


@pytest.mark.parametrize(
    ("model", "processes", "workers"),
    [
        ("models.assemblies.transcribers.LSTMTranscriber", 1, 0),
        ("models.assemblies.keyword_spotters.ConvKeywords", 2, 1),
        ("tasks.wave_model.WaveModel", 1, 0),
    ],
)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(
    hear: Fit, state: State, model: str, processes: int, workers: int
) -> None:
    keys = ["trainer.devices", processes, "data.init_args.workers", workers]
    assert hear("straight", *keys, model=model) == 0
    assert hear("killed", *keys, model=model, die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert hear("killed", *keys, model=model) == 0
    assert_equal(state("straight"), state("killed"))


@pytest.mark.parametrize(
    "model", ["models.assemblies.transcribers.LSTMTranscriber", "models.assemblies.keyword_spotters.ConvKeywords"]
)
def test_two_processes_learn_and_measure_what_one_does(
    hear: Fit, state: State, rows: Callable[[str], list[dict[str, Any]]], model: str
) -> None:
    assert hear("one", model=model, exact=True) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_seconds", 2]
    assert hear("two", *two, model=model, exact=True) == 0
    for name, value in state("one")["state_dict"].items():
        torch.testing.assert_close(state("two")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    one, two = ([row["val/loss"] for row in rows(run) if "val/loss" in row] for run in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-5)
