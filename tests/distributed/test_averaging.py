"""Weight averaging equals the mean of the weights, is used in evaluation, and survives stops."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.callbacks.averaging import ExponentialAverage, TriggeredAverage
from pipeline.distributed.checkpoint import directory as checkpoint
from tests.distributed.fixture_types import Fit, State
from tests.sweep import also

TRIGGERED = [{"class_path": "pipeline.callbacks.averaging.TriggeredAverage", "init_args": {"patience": 1}}]
EXPONENTIAL = [{"class_path": "pipeline.callbacks.averaging.ExponentialAverage", "init_args": {"decay": 0.8}}]
# a learning rate at which the loss on the tiny corpus soon oscillates
ROUGH = ["model.init_args.optimizer.class_path", "torch.optim.SGD", "model.init_args.optimizer.init_args.lr", 40.0]
OFTEN = ["trainer.val_check_interval", 2, "checkpoints.every_steps", 1, "checkpoints.keep_last", 99]


def keys(callbacks: list[dict[str, object]]) -> list[object]:
    return [*ROUGH, *OFTEN, "trainer.callbacks", json.dumps(callbacks)]


def weights_by_step(run: Path) -> dict[int, dict[str, Tensor]]:
    """Return the weights of training by step, in float64."""
    found = {checkpoint.step_of(path): checkpoint.read_state(path) for path in checkpoint.newest_first(run)}
    return {step: {k: v.double() for k, v in state["state_dict"].items()} for step, state in found.items()}


def trigger(losses: list[float], patience: int) -> int:
    """Return the validation at which algorithm 1 sets T: the first above the best of those before `patience`."""
    return next(t for t, loss in enumerate(losses) if t > patience and loss > min(losses[: t - patience]))


def assert_averaged(state: dict[str, Any], expected: dict[str, Tensor]) -> None:
    assert set(state["averaged"]) == set(expected) - {"output.weight"}  # tied to the embedding's
    for name, average in state["averaged"].items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-6)
        assert (average - state["state_dict"][name]).abs().max() > 1e-3


def test_the_triggered_average_is_the_mean_of_the_weights_since_the_trigger(
    fit: Fit, state: State, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit("run", *keys(TRIGGERED)) == 0
    checkpoints = tmp_path / "runs" / "run" / "checkpoints"
    validated = sorted((checkpoint.step_of(path), loss) for loss, path in checkpoint.by_metric(checkpoints, "val/loss"))
    assert [step for step, _ in validated] == [2, 4, 6, 8, 10, 12, 14]
    first = 2 + 2 * trigger([loss for _, loss in validated], patience=1)
    assert 4 < first < 12
    assert f"starts at step {first}\n" in capfd.readouterr().out
    weights = weights_by_step(checkpoints)
    since = [weights[step] for step in range(first, 15)]
    expected = {name: torch.stack([each[name] for each in since]).mean(0) for name in since[0]}
    assert_averaged(state("run"), expected)


def test_the_exponential_average_weighs_every_step_by_its_age(fit: Fit, state: State, tmp_path: Path) -> None:
    assert fit("run", *keys(EXPONENTIAL)) == 0
    weights = weights_by_step(tmp_path / "runs" / "run" / "checkpoints")
    # the mean of the first five steps, then 0.8 of the average and 0.2 of the weights
    ages = [0.8 ** (14 - step) * 0.2 for step in range(6, 15)]
    shares = [(1 - sum(ages)) / 5] * 5 + ages
    expected = {name: sum(share * weights[n + 1][name] for n, share in enumerate(shares)) for name in weights[1]}
    assert_averaged(state("run"), expected)  # type: ignore[arg-type]


def assert_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Weights, average, its record and the optimizer are the same numbers."""
    [[record, other]] = [
        [state["callbacks"][key] for state in (one, two)] for key in one["callbacks"] if key.endswith("Average")
    ]
    assert record == other
    for part in ("state_dict", "averaged", "optimizer_states"):
        left, right = (torch.utils._pytree.tree_leaves(state[part]) for state in (one, two))
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.slow
@pytest.mark.parametrize(
    ("callbacks", "processes"),
    [(TRIGGERED, 2), (EXPONENTIAL, 1), *also((TRIGGERED, 1), (EXPONENTIAL, 2))],
    ids=["triggered-2", "exponential-1", "triggered-1", "exponential-2"],
)
def test_a_run_killed_before_and_after_the_trigger_ends_like_the_straight_one(
    fit: Fit, state: State, callbacks: list[dict[str, object]], processes: int
) -> None:
    options = [*keys(callbacks), "trainer.devices", processes]
    assert fit("straight", *options) == 0
    for step in (3, 7, 12):
        assert fit("killed", *options, die=(signal.SIGKILL, step)) == 128 + signal.SIGKILL
    assert fit("killed", *options) == 0
    assert_equal(state("straight"), state("killed"))


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 8, 11, *also(4, 6, 7, 9, 10)])
def test_a_stop_at_any_step_around_the_trigger_changes_nothing(fit: Fit, state: State, step: int) -> None:
    options = keys(TRIGGERED)
    assert fit("straight", *options) == 0
    assert fit("stopped", *options, die=(signal.SIGTERM, step)) == 75
    assert fit("stopped", *options) == 0
    assert_equal(state("straight"), state("stopped"))


def test_two_processes_and_micro_batches_average_what_one_averages(fit: Fit, state: State) -> None:
    gentle = ["model.init_args.optimizer.class_path", "torch.optim.SGD", "model.init_args.optimizer.init_args.lr", 0.01]
    options = ["model.init_args.dropout", 0.0, *gentle, "trainer.callbacks", json.dumps(EXPONENTIAL)]
    assert fit("one", *options) == 0
    assert fit("two", *options, "trainer.devices", 2) == 0
    assert fit("four", *options, "data.init_args.per_device_batch_size", 4) == 0
    for name in ("two", "four"):
        for key, value in state("one")["averaged"].items():
            torch.testing.assert_close(state(name)["averaged"][key], value)


def test_whoever_loads_the_run_gets_what_validation_measured(
    fit: Fit, state: State, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pipeline.cli import main
    from pipeline.runs.load import choose_checkpoint, load_model

    assert fit("run", *keys(EXPONENTIAL)) == 0
    run = tmp_path / "runs" / "run"
    loaded = load_model(run, "last").state_dict()
    assert "using the averaged weights" in capfd.readouterr().err
    averaged = state("run")["averaged"]
    assert torch.equal(loaded["output.weight"], averaged["embedding.weight"])
    assert all(torch.equal(loaded[name], average) for name, average in averaged.items())

    best = choose_checkpoint(run, "best")
    measured = json.loads((best / checkpoint.MANIFEST).read_text())["metrics"]["val/loss"]
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("metric: val/loss", "metric: val/seconds_not_measured"))
    assert choose_checkpoint(run, "best") == choose_checkpoint(run, "last")
    config.write_text(config.read_text().replace("metric: val/seconds_not_measured", "metric: val/loss"))
    assert main(["validate", "--run", "run"]) == 0
    printed = capfd.readouterr()
    assert "using the averaged weights" in printed.err
    assert f"{'val/loss':32} {measured:.4f}\n" in printed.out


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="patience=0"):
        TriggeredAverage(patience=0)
    with pytest.raises(ValueError, match=r"decay=1\.0"):
        ExponentialAverage(decay=1.0)


def test_under_a_strategy_that_divides_the_weights_the_average_is_refused(
    fit: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    sharded = ["trainer.strategy", '{"class_path": "pipeline.distributed.strategies.FullySharded"}']
    assert fit("run", *sharded, "trainer.callbacks", json.dumps(EXPONENTIAL)) == 2
    assert "FullySharded shards the weights that ExponentialAverage averages: train with ddp" in capfd.readouterr().err
