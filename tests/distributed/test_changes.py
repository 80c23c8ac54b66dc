"""Settings that are changed between two attempts have their effect, under every strategy and after every stop."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.distributed.fixture_types import Fit, Rows, State
from tests.distributed.test_strategies import on

OPTIMIZER, SCHEDULE = "model.init_args.optimizer.init_args.", "model.init_args.schedule"
COSINE = [f"{SCHEDULE}.class_path", "pipeline.optim.WarmupCosine", f"{SCHEDULE}.init_args.warmup_steps", 2]
EACH = ["trainer.log_every_n_steps", 1, "trainer.val_check_interval", 100]


def assert_same_weights(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["one", "fsdp", "zero2", "zero3", "Muon"])
def test_a_new_learning_rate_is_used_from_the_first_step_on(fit: Fit, state: State, strategy: str) -> None:
    """A rate of 0 keeps the weights; a kill before the first checkpoint of the attempt does not lose the change."""
    keys, rates = [*EACH, *COSINE], [f"{OPTIMIZER}lr"]
    if strategy == "Muon":  # each part has its own rate
        keys += ["model.init_args.optimizer.class_path", "pipeline.optim.muon.Muon", f"{OPTIMIZER}adamw_lr", 0.02]
        rates += [f"{OPTIMIZER}adamw_lr"]
    elif strategy != "one":
        keys += on(strategy)
    assert fit("run", *keys, "trainer.max_steps", 4) == 0
    before = state("run")["state_dict"]
    no_rate = [value for rate in rates for value in (rate, 0.0)]
    still = [*keys, "trainer.max_steps", 7, *no_rate, "checkpoints.every_steps", 100]
    assert fit("run", *still, die=(signal.SIGKILL, 5)) == 128 + signal.SIGKILL
    assert fit("run", *still) == 0
    assert state("run")["global_step"] == 7
    assert_same_weights(state("run")["state_dict"], before)


@pytest.mark.parametrize(
    ("choice", "factors"),
    [
        ([], [0.1, 0.55, 0.325, 0.1 + 0.45 * (1 - 0.75**0.5), 0.1]),  # the cosine of 90, 120, 150 and 180 degrees
        (["decay_steps", 4], [0.1] * 5),
        (["rewarm_step", 4], [0.1, 1.0, 1.0, 0.55, 0.1]),
    ],
    ids=["follow", "keep", "rewarm"],
)
def test_a_longer_run_follows_keeps_or_repeats_its_decay(
    fit: Fit, rows: Rows, choice: list[object], factors: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    keys = [*EACH, *COSINE]
    assert fit("run", *keys, "trainer.max_steps", 4) == 0
    more = [f"{SCHEDULE}.init_args.{choice[0]}", choice[1]] if choice else []
    assert fit("run", *keys, *more, "trainer.max_steps", 8) == 0
    found = {row["step"]: row["train/learning_rate"] for row in rows("run") if "train/learning_rate" in row}
    assert [found[step] / 0.01 for step in range(4, 9)] == pytest.approx(factors)
    offered = "decay_steps=4" in (printed := capfd.readouterr().out) and "rewarm_step=4" in printed
    assert offered == (not choice)


def test_other_options_of_the_optimizer_are_changed_on_purpose(
    fit: Fit, state: State, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit("run", "trainer.max_steps", 4) == 0
    assert fit("run", "trainer.max_steps", 6, f"{OPTIMIZER}weight_decay", 0.5) == 2
    assert (
        "run run was trained with other settings: model.init_args.optimizer.init_args.weight_decay=0.5, previously 0.01"
        in capfd.readouterr().err
    )
    assert fit("run", "trainer.max_steps", 6, f"{OPTIMIZER}weight_decay", 0.5, "allow-changes", ...) == 0
    groups = state("run")["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]  # matrices, vectors
    attempts = json.loads(Path("runs/run/run.json").read_text())["attempts"]
    assert [attempt["changes"] for attempt in attempts] == [
        {},
        {f"{OPTIMIZER}weight_decay": [0.01, 0.5], "trainer.max_steps": [4, 6]},
    ]


def test_an_average_of_the_weights_is_switched_on_and_off(fit: Fit, state: State) -> None:
    average = ["trainer.callbacks", '[{"class_path": "pipeline.callbacks.averaging.ExponentialAverage"}]']
    assert fit("run", "trainer.max_steps", 4) == 0
    assert fit("run", "trainer.max_steps", 6, *average) == 2
    assert fit("run", "trainer.max_steps", 6, *average, "allow-changes", ...) == 0
    assert state("run")["callbacks"]["ExponentialAverage"]["count"] == 2
    assert "averaged" in state("run")
    assert fit("run", "trainer.max_steps", 8, "allow-changes", ...) == 0
    assert "averaged" not in state("run")


def test_a_copied_run_gets_an_identity_of_its_own_and_a_moved_one_keeps_its_own(
    fit: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    def ids(name: str) -> tuple[str, str]:
        record = json.loads(Path(f"runs/{name}/run.json").read_text())
        return record["id"], record["wandb_id"]

    assert fit("one", "trainer.max_steps", 4) == 0
    first = ids("one")
    shutil.copytree("runs/one", "runs/two")
    assert fit("two", "trainer.max_steps", 6) == 0
    assert "run two is a copy of" in capfd.readouterr().out
    assert not set(ids("two")) & set(first)
    assert ids("one") == first
    Path("runs/one").rename("runs/moved")
    assert fit("moved", "trainer.max_steps", 6) == 0
    assert ids("moved") == first
    assert "copy" not in capfd.readouterr().out
