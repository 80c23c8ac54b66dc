"""Forecasters continue exactly, and learn and measure the same on any number of processes."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Fit = Callable[..., int]
State = Callable[[str], dict[str, Any]]
Rows = Callable[[str], list[dict[str, Any]]]

CONFIG = """
model:
  class_path: pipeline.models.{name}
  init_args: {{{network}, optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}}}}
data:
  class_path: pipeline.data.series.SeriesDataModule
  init_args: {{dataset: {dataset}, context: 24, horizon: 6, global_batch_size: 16, stride: 5}}
"""
STUDENT = "{outcome: {class_path: pipeline.outcomes.StudentT}, reach: 2, instance_norm: true, paths: 10}"
NETWORKS = {
    "forecasters.LSTMForecaster": f"width: 8, depth: 1, dropout: {{dropout}}, saying: {STUDENT}",
    "forecasters.ConvForecaster": "width: 8, depth: 3, dropout: {dropout}",
    "dlinear.DLinearForecaster": "kernel: 5, saying: {dropout: {dropout}}",
    "patch_transformer.PatchTransformerForecaster": "width: 8, heads: 2, patch: 6, stride: 3, dropout: {dropout}",
}


@pytest.fixture
def forecast(fit: Fit, tiny_series_dataset: Path, tmp_path: Path) -> Fit:
    """`forecast(RUN, KEY, VALUE, ..., model=NAME)` is `fit` for a forecaster."""

    def forecast(run: str, *overrides: Any, model: str, exact: bool = False, **rest: Any) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        network = NETWORKS[model].replace("{dropout}", str(dropout))
        told = {"name": model, "network": network, "optimizer": optimizer, "dataset": tiny_series_dataset}
        (tmp_path / f"{model.rsplit('.', 1)[1]}.yaml").write_text(CONFIG.format(**told))
        return fit(run, *overrides, model=f"pipeline.models.{model}", **rest)

    return forecast


@pytest.mark.parametrize("model", NETWORKS)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(forecast: Fit, state: State, model: str) -> None:
    assert forecast("straight", model=model) == 0
    assert forecast("killed", model=model, die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert forecast("killed", model=model) == 0
    one, two = state("straight"), state("killed")
    assert one["global_step"] == two["global_step"] == 14
    for part in ("state_dict", "optimizer_states"):
        left, right = (torch.utils._pytree.tree_leaves(each[part]) for each in (one, two))
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_a_run_moves_between_processes_and_micro_batches_and_measures_the_same(
    forecast: Fit, state: State, rows: Rows
) -> None:
    model = "forecasters.LSTMForecaster"
    assert forecast("straight", exact=True, model=model) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_size", 4]
    assert forecast("moved", exact=True, model=model, die=(signal.SIGTERM, 4)) == 75
    assert forecast("moved", *two, exact=True, model=model, die=(signal.SIGTERM, 12)) == 75
    assert forecast("moved", exact=True, model=model) == 0
    for name, value in state("straight")["state_dict"].items():
        torch.testing.assert_close(state("moved")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    straight, moved = ({row["step"]: row for row in rows(name) if "val/crps" in row} for name in ("straight", "moved"))
    assert straight.keys() <= moved.keys()  # a stop validates too
    for step, row in straight.items():  # paths too: their noise belongs to the sample
        for key in ("val/loss", "val/mse", "val/mae", "val/mase", "val/crps", "val/coverage"):
            assert moved[step][key] == pytest.approx(row[key], rel=1e-3), (step, key)
