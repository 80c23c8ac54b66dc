"""Forecasting runs continue exactly, with the same results on any number of processes."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distributed.fixture_types import Fit, Rows, State

CONFIG = """
model:
  class_path: pipeline.{task}
  init_args: {{{settings}, optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}}}}
data:
  class_path: pipeline.data.series.SeriesDataModule
  init_args: {{dataset: {dataset}, context: 24, horizon: 6, global_batch_size: 16, stride: 5}}
"""
LIKELIHOOD = "likelihood: {class_path: pipeline.tasks.likelihoods.StudentT}"
STUDENT = f"{{{LIKELIHOOD}, chunk_length: 2, instance_norm: true, num_samples: 10}}"
FORECASTER = "tasks.forecaster.Forecaster"
LSTM = "network: {class_path: pipeline.models.lstm.LSTM, init_args: {width: 8, depth: 1, dropout: DROPOUT}}"
CONV = "network: {class_path: pipeline.models.conv.ConvNet, init_args: {width: 8, depth: 3, dropout: DROPOUT}}"
MODELS = {
    "LSTM": (FORECASTER, f"{LSTM}, forecast: {STUDENT}"),
    "ConvNet": (FORECASTER, CONV),
    "DLinear": ("models.dlinear.DLinearForecaster", "kernel: 5, forecast: {dropout: DROPOUT}"),
    "PatchTransformer": (
        "models.assemblies.patch_transformer.PatchTransformerForecaster",
        "width: 8, heads: 2, patch: 6, stride: 3, dropout: DROPOUT",
    ),
}


@pytest.fixture
def forecast(fit: Fit, tiny_series_dataset: Path, tmp_path: Path) -> Fit:
    """`forecast(RUN, KEY, VALUE, ..., model=NAME)` is `fit` for a forecaster."""

    def forecast(run: str, *overrides: object, model: str, exact: bool = False, **rest: object) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        task, settings = MODELS[model]
        values = {"task": task, "settings": settings.replace("DROPOUT", str(dropout)), "optimizer": optimizer}
        (tmp_path / f"{model}.yaml").write_text(CONFIG.format(**values, dataset=tiny_series_dataset))
        return fit(run, *overrides, model=f"pipeline.{model}", **rest)

    return forecast


@pytest.mark.parametrize("model", MODELS)
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
    model = "LSTM"
    assert forecast("straight", exact=True, model=model) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_size", 4]
    assert forecast("moved", exact=True, model=model, die=(signal.SIGTERM, 4)) == 75
    assert forecast("moved", *two, exact=True, model=model, die=(signal.SIGTERM, 12)) == 75
    assert forecast("moved", exact=True, model=model) == 0
    for name, value in state("straight")["state_dict"].items():
        torch.testing.assert_close(state("moved")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    straight, moved = ({row["step"]: row for row in rows(name) if "val/crps" in row} for name in ("straight", "moved"))
    assert straight.keys() <= moved.keys()  # a stop also validates
    for step, row in straight.items():  # also metrics of sample paths, whose noise depends on the sample
        for key in ("val/loss", "val/mse", "val/mae", "val/mase", "val/crps", "val/coverage"):
            assert moved[step][key] == pytest.approx(row[key], rel=1e-3), (step, key)


def test_a_test_stands_beside_the_baselines_and_a_table_is_forecast(
    forecast: Fit, tiny_series_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline.cli import main
    from pipeline.dataset.manifest import Dataset

    assert forecast("run", "trainer.max_steps", 4, exact=True, model="DLinear") == 0
    assert list((tmp_path / "runs" / "run" / "pictures").glob("*-forecasts-1.png"))
    assert main(["test", "--run", "run"]) == 0
    printed = dict(line.split() for line in capfd.readouterr().out.splitlines() if line.startswith("  test/"))
    split = Dataset.open(tiny_series_dataset).splits["test"]
    missed = [split.values[at : at + 6] - split.values[at - 1] for _, at in split.windows(24, 6, 5).tolist()]
    assert float(printed["test/naive/mse"]) == pytest.approx(float(np.square(missed).mean()), abs=1e-4)
    assert float(printed["test/linear/mse"]) < float(printed["test/seasonal/mse"]) < float(printed["test/naive/mse"])
    assert {"test/mse", "test/mae", "test/mase"} <= printed.keys()
    rows = (tiny_series_dataset.parent / "table.csv").read_text().splitlines()
    rows += [f"2020-01-11 0{hour}:00,{name},,1" for hour in range(6) for name in ("north", "south", "west")]
    (tmp_path / "history.csv").write_text("\n".join(rows))
    options = ["--history", str(tmp_path / "history.csv"), "--output", str(tmp_path / "next.csv")]
    assert main(["generate", "run", *options, "--picture", str(tmp_path / "next.svg")]) == 0
    assert "<svg" in (tmp_path / "next.svg").read_text()
    assert main(["generate", "run", *options, "--picture", "next.none"]) == 2
    printed = capfd.readouterr().err.splitlines()[-1]
    assert printed.startswith(
        "unroll: error: argument --picture: expected a file that ends in .png or .svg or .pdf, got"
    )
    head, *lines = (tmp_path / "next.csv").read_text().splitlines()
    assert head == "time,series,forecast"
    assert [line.rsplit(",", 1)[0] for line in lines[:2]] == ["2020-01-11 00:00,north", "2020-01-11 01:00,north"]
    assert len(lines) == 3 * 6
    assert main(["checkpoint", "export", "run", "--output", str(tmp_path / "taken")]) == 0
    taken = [each.replace("next.csv", "taken.csv") for each in options]
    assert main(["generate", str(tmp_path / "taken"), *taken]) == 0
    assert (tmp_path / "taken.csv").read_bytes() == (tmp_path / "next.csv").read_bytes()
    assert "unroll generate taken --history FILE.csv" in (tmp_path / "taken" / "README.md").read_text()
    assert main(["generate", "run"]) == 2
    assert "--history FILE.csv" in capfd.readouterr().err
