"""Policies: causality, masking after an episode's end, and scaling of inputs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.data.batch import TrajectoryBatch
from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM, LSTMLanguageModel
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.tasks.policy import Policy, RolloutSettings
from pipeline.tasks.recall import Recaller

SPACES: dict[str, Any] = {
    "observation_mean": [1.0, -2.0, 0.0],
    "observation_deviation": [2.0, 0.5, 1.0],
    "choices": 4,
    "low": [],
    "high": [],
    "best_return": 9.0,
    "return_scale": 10.0,
}
NUMBERS = {**SPACES, "choices": 0, "low": [-1.0, 0.0], "high": [1.0, 4.0]}
LENGTHS = (7, 4, 2)


def batch(spaces: dict[str, Any] = SPACES, positions: int = 7) -> TrajectoryBatch:
    torch.manual_seed(3)
    inside = torch.arange(positions) < torch.tensor(LENGTHS)[:, None]
    seen, returns = torch.randn(3, positions, 3), torch.randn(3, positions)
    if spaces["choices"]:
        actions = torch.randint(4, (3, positions))
        nothing = torch.full((3, 1), -1)
    else:
        actions = torch.rand(3, positions, 2)
        nothing = torch.full((3, 1, 2), float("nan"))
    before = torch.cat([nothing, actions[:, :-1]], 1)
    count = int(inside.sum())
    ids = torch.arange(3)
    return TrajectoryBatch(seen, before, returns, actions, inside, ids, count, 0, inside.numel(), 0)


def policy(spaces: dict[str, Any] = SPACES, **options: Any) -> Policy:
    torch.manual_seed(1)
    return Policy(LSTM(width=8, depth=1), spaces, **options).eval()


def outputs_of(task: Policy, given: TrajectoryBatch) -> torch.Tensor:
    return task(given.observations, given.before, given.returns)[0]


def test_the_architecture_of_a_task_of_any_network_names_both() -> None:
    assert policy().architecture == "LSTMPolicy"
    assert Recaller(GRU(width=8), 5).architecture == "GRURecaller"
    assert LSTMLanguageModel(5, width=8).architecture == "LSTMLanguageModel"


@pytest.mark.numeric
def test_the_loss_is_the_nats_of_the_actions_inside() -> None:
    task, given = policy(), batch()
    logits = outputs_of(task, given)
    rows = [F.cross_entropy(logits[row, :n], given.actions[row, :n], reduction="sum") for row, n in enumerate(LENGTHS)]
    torch.testing.assert_close(task._nats(given), torch.stack(rows).sum())
    assert torch.equal(task.position_losses(given).isnan(), ~given.inside)
    torch.testing.assert_close(task.position_losses(given).nansum(1), torch.stack(rows))


@pytest.mark.numeric
@pytest.mark.parametrize("spaces", [SPACES, NUMBERS], ids=["choices", "numbers"])
@pytest.mark.parametrize("make", [ConvNet, GRU, LSTM, LinearRecurrence, RNN, partial(Transformer, heads=2)], ids=str)
def test_positions_after_an_episodes_end_change_nothing(make: Callable[..., nn.Module], spaces: dict[str, Any]) -> None:
    torch.manual_seed(1)
    task, given = Policy(make(width=8, depth=2), spaces).eval(), batch(spaces)

    def gradients(given: TrajectoryBatch) -> list[torch.Tensor]:
        return list(torch.autograd.grad(task._nats(given), list(task.parameters())))

    outside = ~given.inside
    wild = given._replace(
        observations=given.observations.masked_fill(outside[..., None], 1e3),
        returns=given.returns.masked_fill(outside, -1e3),
    )
    longer = type(given)(
        *(
            torch.cat([part, part[:, -1:].expand(-1, 3, *part.shape[2:])], 1)
            if isinstance(part, torch.Tensor) and part.ndim > 1
            else part
            for part in wild
        )
    )
    longer = longer._replace(inside=F.pad(given.inside, (0, 3)))
    for other in (wild, longer):
        torch.testing.assert_close(task._nats(other), task._nats(given), rtol=1e-5, atol=1e-5)
        for one, two in zip(gradients(other), gradients(given), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_an_action_depends_on_earlier_observations_and_actions_alone() -> None:
    task, given = policy(NUMBERS), batch(NUMBERS)
    inputs = given.observations.requires_grad_(), given.before.requires_grad_(), given.returns.requires_grad_()
    outputs, _ = task(*inputs)
    for step in (0, 3):
        gradients = torch.autograd.grad(outputs[:, step].sum(), inputs, retain_graph=True)
        for gradient in gradients:
            assert not gradient[:, step + 1 :].any()
        assert gradients[0][:, step].abs().min() > 0
        assert gradients[2][:, step].abs().min() > 0


@pytest.mark.numeric
def test_behavior_cloning_ignores_the_return() -> None:
    given = batch()
    other = given._replace(returns=given.returns + 5)
    cloning, conditioned = policy(return_conditioned=False), policy()
    assert torch.equal(outputs_of(cloning, given), outputs_of(cloning, other))
    assert not torch.equal(outputs_of(conditioned, given), outputs_of(conditioned, other))


@pytest.mark.numeric
def test_observations_and_returns_are_read_in_units_of_the_data() -> None:
    task, given = policy(), batch()
    scaled = {**SPACES, "observation_mean": [10.0, -20.0, 0.0], "observation_deviation": [20.0, 5.0, 10.0]}
    other = policy({**scaled, "return_scale": 100.0})
    ten = given._replace(observations=10 * given.observations, returns=10 * given.returns)
    torch.testing.assert_close(outputs_of(other, ten), outputs_of(task, given))


def test_the_target_return_defaults_to_the_best_of_the_data() -> None:
    assert policy().target_return == 9.0
    assert policy(rollout=RolloutSettings(target_return=4.0)).target_return == 4.0
