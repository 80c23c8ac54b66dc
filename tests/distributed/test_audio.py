"""Runs on augmented audio continue exactly, with the same results on any number of processes."""

import signal
from pathlib import Path

import pytest
import torch

from tests.distributed.fixture_types import Fit, Rows, State
from tests.distributed.test_pairs import assert_equal

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
def fit_audio(fit: Fit, tiny_audio_dataset: Path, tiny_labels_dataset: Path, tmp_path: Path) -> Fit:
    """`fit_audio(RUN, KEY, VALUE, ..., model=MODULE.NAME)` is `fit` for a model of audio or speech."""

    def fit_audio(run: str, *overrides: object, model: str, exact: bool = False, **rest: object) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        dataset = tiny_audio_dataset if "transcribers" in model else tiny_labels_dataset
        waves = model.endswith("WaveModel")
        data = (WAVES if waves else SOUNDS).format(dataset=dataset)
        network = WAVENET if waves else f"width: 16, depth: 1, dropout: {dropout}"
        config = CONFIG.format(model=model, network=network, optimizer=optimizer, data=data)
        (tmp_path / f"{model.rsplit('.', 1)[1]}.yaml").write_text(config)
        return fit(run, *overrides, model=f"pipeline.{model}", **rest)

    return fit_audio


@pytest.mark.parametrize(
    ("model", "processes", "workers"),
    [
        ("models.assemblies.transcribers.LSTMTranscriber", 1, 0),
        ("models.assemblies.keyword_spotters.ConvKeywords", 2, 1),
        ("tasks.wave_model.WaveModel", 1, 0),
    ],
)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(
    fit_audio: Fit, state: State, model: str, processes: int, workers: int
) -> None:
    keys = ["trainer.devices", processes, "data.init_args.workers", workers]
    assert fit_audio("straight", *keys, model=model) == 0
    assert fit_audio("killed", *keys, model=model, die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert fit_audio("killed", *keys, model=model) == 0
    assert_equal(state("straight"), state("killed"))


@pytest.mark.parametrize(
    "model", ["models.assemblies.transcribers.LSTMTranscriber", "models.assemblies.keyword_spotters.ConvKeywords"]
)
def test_two_processes_learn_and_measure_what_one_does(fit_audio: Fit, state: State, rows: Rows, model: str) -> None:
    assert fit_audio("one", model=model, exact=True) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_seconds", 2]
    assert fit_audio("two", *two, model=model, exact=True) == 0
    for name, value in state("one")["state_dict"].items():
        torch.testing.assert_close(state("two")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    one, two = ([row["val/loss"] for row in rows(run) if "val/loss" in row] for run in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-5)
