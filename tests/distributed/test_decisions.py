"""Policies continue exactly, learn and roll out the same on any number of processes, and can be evaluated by `play`."""

import json
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.distributed.fixture_types import Fit, Rows, State

CONFIG = """
model:
  class_path: pipeline.tasks.policy.Policy
  init_args:
    network: {{class_path: pipeline.models.{name}, init_args: {{{network}}}}}
    rollout: {{episodes: 6}}
    optimizer: {{class_path: {optimizer}, init_args: {{lr: 0.01}}}}
data:
  class_path: pipeline.data.trajectories.TrajectoriesDataModule
  init_args: {{dataset: {dataset}, {context}, global_batch_size: 16}}
"""
NETWORKS = {
    "lstm.LSTM": ("context: null", "width: 8, depth: 1, dropout: {dropout}"),
    "transformer.Transformer": ("context: 4", "width: 8, depth: 1, heads: 2, dropout: {dropout}"),
}


@pytest.fixture
def decide(fit: Fit, tiny_trajectories_dataset: Path, tmp_path: Path) -> Fit:
    """`decide(RUN, KEY, VALUE, ..., model=MODULE.NETWORK)` is `fit` for a policy."""

    def decide(run: str, *overrides: object, model: str = "lstm.LSTM", exact: bool = False, **rest: object) -> int:
        dropout, optimizer = (0.0, "torch.optim.SGD") if exact else (0.2, "torch.optim.AdamW")
        context, network = NETWORKS[model]
        settings = {
            "name": model,
            "optimizer": optimizer,
            "context": context,
            "network": network.format(dropout=dropout),
        }
        (tmp_path / f"{model.split('.')[1]}.yaml").write_text(
            CONFIG.format(**settings, dataset=tiny_trajectories_dataset)
        )
        return fit(run, *overrides, model=model, **rest)

    return decide


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
def test_a_killed_run_ends_bit_for_bit_like_the_straight_one(decide: Fit, state: State, rows: Rows, model: str) -> None:
    assert decide("straight", model=model) == 0
    assert decide("killed", model=model, die=(signal.SIGKILL, 7)) == 128 + signal.SIGKILL
    assert decide("killed", model=model) == 0
    one, two = state("straight"), state("killed")
    assert one["global_step"] == two["global_step"] == 14
    for part in ("state_dict", "optimizer_states"):
        left, right = (torch.utils._pytree.tree_leaves(each[part]) for each in (one, two))
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    straight, killed = (
        {row["step"]: row["val/return"] for row in rows(name) if "val/return" in row} for name in ("straight", "killed")
    )
    assert straight == killed


@pytest.mark.slow
def test_a_run_moves_between_processes_and_micro_batches_and_plays_the_same(
    decide: Fit, state: State, rows: Rows
) -> None:
    assert decide("straight", exact=True) == 0
    two = ["trainer.devices", 2, "data.init_args.per_device_batch_size", 4]
    assert decide("moved", exact=True, die=(signal.SIGTERM, 4)) == 75
    assert decide("moved", *two, exact=True, die=(signal.SIGTERM, 12)) == 75
    assert decide("moved", exact=True) == 0
    for name, value in state("straight")["state_dict"].items():
        torch.testing.assert_close(state("moved")["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    straight, moved = ({row["step"]: row for row in rows(name) if "val/loss" in row} for name in ("straight", "moved"))
    assert straight.keys() <= moved.keys()  # a stop also validates
    for step, row in straight.items():
        assert moved[step]["val/loss"] == pytest.approx(row["val/loss"], rel=1e-3)
        assert moved[step]["val/return"] == row["val/return"]  # six episodes, divided among processes


@pytest.mark.slow
def test_a_policy_is_tested_and_played(decide: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import main

    assert decide("run", "trainer.max_steps", 4) == 0
    assert decide("other", "trainer.max_steps", 4, model="transformer.Transformer") == 0
    assert main(["test", "--run", "run"]) == 0
    printed = capfd.readouterr().out
    assert "test/return" in printed
    assert "returns of the training data: mean 0." in printed
    command = ["play", "run", "other", "--return", "0", "1", "--delay", "2", "3", "--episodes", "10"]
    assert main(command) == 0
    first = capfd.readouterr().out
    lines = first.splitlines()
    assert lines[2] == "| target return | delay | run | other |"
    assert [line.split(" | ")[:2] for line in lines[4:]] == [["| 0", "2"], ["| 0", "3"], ["| 1", "2"], ["| 1", "3"]]
    assert main(command) == 0
    assert capfd.readouterr().out == first
    assert main(["play", "run", "--return", "0", "1", "2", "--episodes", "4", "--picture", "returns.png"]) == 0
    with Image.open("returns.png") as drawn:
        assert len(drawn.convert("RGB").getcolors(10_000) or []) > 4  # background, text, grid and a line
    assert main([*command, "--picture", "returns.png"]) == 2
    assert "give several --return, or several --delay" in capfd.readouterr().err
    assert main(["diagnose", "run"]) == 0
    assert "receptive field" in capfd.readouterr().out
    assert main([*command, "--seed", "-1"]) == 2
    assert "--seed: expected an integer of at least 0, got -1" in capfd.readouterr().err
    assert main(["generate", "run"]) == 2
    assert "Run `unroll play run`" in capfd.readouterr().err


def test_a_run_without_an_environment_learns_and_is_not_played(
    fit: Fit, tmp_path: Path, rows: Rows, capfd: pytest.CaptureFixture[str]
) -> None:
    from data_prep.trajectories import command as trajectories
    from pipeline.cli import main

    episode = {"actions": [[0.5], [0.1], [-1.0], [1.0]], "rewards": [1, 0, 0, 2]}
    lines = [json.dumps({**episode, "observations": [[0.1, number / 100]] * 4}) for number in range(60)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    assert trajectories.main([str(tmp_path / "mine.jsonl"), "--output", str(tmp_path / "data")]) == 0
    settings = {"name": "lstm.LSTM", "network": "width: 8", "context": "context: 3", "optimizer": "torch.optim.AdamW"}
    (tmp_path / "LSTM.yaml").write_text(CONFIG.format(**settings, dataset=tmp_path / "data"))
    assert fit("mine", model="lstm.LSTM") == 0
    found = [row for row in rows("mine") if "val/loss" in row]
    assert found[-1]["val/loss"] < found[0]["val/loss"]
    assert "val/return" not in found[-1]
    assert main(["play", "mine"]) == 3
    assert "RUN=mine: its dataset has no environment. Prepare it with --environment ID" in capfd.readouterr().err


def test_a_run_of_another_kind_is_not_played(fit: Fit, capfd: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import main

    assert fit("text", "trainer.max_steps", 2) == 0
    assert main(["play", "text"]) == 3
    assert "RUN=text: expected a policy" in capfd.readouterr().err


def test_episodes_longer_than_the_learned_positions_end_in_one_line(
    decide: Fit, capfd: pytest.CaptureFixture[str]
) -> None:
    few = ["model.init_args.network.init_args.positions", 4, "trainer.max_steps", 2, "trainer.val_check_interval", 2]
    assert decide("few", *few, model="transformer.Transformer") == 2
    printed = capfd.readouterr().err
    assert "unroll: error: positions=4: expected at least 5 learned positions. Increase or unset it" in printed
    assert "Traceback" not in printed
