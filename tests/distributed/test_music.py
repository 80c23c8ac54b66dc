"""Music models continue exactly, and learn the same on any number of processes."""

import signal
from pathlib import Path

import pytest
import torch

from tests.distributed.fixture_types import Fit, Rows, State

CONFIG = """
model:
  class_path: pipeline.tasks.music_model.MusicModel
  init_args:
    network: {{class_path: pipeline.models.gru.GRU, init_args: {{width: 8, depth: 2, dropout: {dropout}}}}}
    optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}}
data:
  class_path: pipeline.data.music.MusicDataModule
  init_args: {{dataset: {dataset}, global_batch_tokens: 200, transpose: 4}}
"""


@pytest.fixture
def compose(fit: Fit, tiny_music_dataset: Path, tmp_path: Path) -> Fit:
    """`compose(RUN, KEY, VALUE, ...)` is `fit` for a music model."""

    def compose(run: str, *overrides: object, exact: bool = False, **rest: object) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        text = CONFIG.format(dropout=dropout, optimizer=optimizer, dataset=tiny_music_dataset)
        (tmp_path / "music_model.yaml").write_text(text)
        return fit(run, *overrides, model="pipeline.music_model", **rest)

    return compose


@pytest.mark.slow
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(compose: Fit, state: State) -> None:
    assert compose("straight") == 0
    assert compose("killed", die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert compose("killed") == 0
    one, two = state("straight"), state("killed")
    assert one["global_step"] == two["global_step"] == 14
    for part in ("state_dict", "optimizer_states"):
        left, right = (torch.utils._pytree.tree_leaves(each[part]) for each in (one, two))
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.slow
def test_a_run_moves_between_processes_and_micro_batches(compose: Fit, state: State, rows: Rows) -> None:
    assert compose("straight", exact=True) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_tokens", 50]
    assert compose("moved", exact=True, die=(signal.SIGTERM, 4)) == 75
    assert compose("moved", *two, exact=True, die=(signal.SIGTERM, 12)) == 75
    assert compose("moved", exact=True) == 0
    for name, value in state("straight")["state_dict"].items():
        torch.testing.assert_close(state("moved")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    straight, moved = ({row["step"]: row for row in rows(name) if "val/loss" in row} for name in ("straight", "moved"))
    for step, row in straight.items():
        assert moved[step]["val/nats_per_frame"] == pytest.approx(row["val/loss"], rel=1e-3)
