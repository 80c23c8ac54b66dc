"""Rollouts: steps equal one call over the episode, and an episode depends on its number alone."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.dataset.environments import KEY_TO_DOOR, make
from pipeline.errors import ConfigError
from pipeline.generation.rollout import play_episodes
from pipeline.models.bag_of_words import BagOfWords
from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.ngram import NGram
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.tasks.policy import Policy

DOOR = partial(make, KEY_TO_DOOR, {"keys": 3, "delay": [1, 6]})
CART = partial(make, "CartPole-v1", {})
SPACES: dict[str, Any] = {"low": [], "high": [], "best_return": 1.0, "return_scale": 1.0}
EVERY = [BagOfWords, NGram, RNN, GRU, LSTM, ConvNet, LinearRecurrence, Transformer]


def policy(network: nn.Module | None = None, seen: int = 5, choices: int = 4, **more: Any) -> Policy:
    torch.manual_seed(1)
    scales = {"observation_mean": [0.0] * seen, "observation_deviation": [1.0] * seen}
    spaces = {**SPACES, **scales, "choices": choices, **more}
    return Policy(network or LSTM(width=8, depth=1), spaces).double().eval()


class Watched:
    """A policy that records its calls."""

    def __init__(self, watched: Policy) -> None:
        self.policy, self.actions, self.calls = watched, watched.actions, list[Any]()

    def parameters(self) -> Any:
        return self.policy.parameters()

    def __call__(self, *given: Any) -> Any:
        outputs, state = self.policy(*given)
        self.calls.append((*given[:3], outputs))
        return outputs, state


@pytest.mark.numeric
@pytest.mark.parametrize("network", EVERY, ids=lambda network: network.__name__)
def test_steps_through_the_state_equal_one_call_over_the_episode(network: type[nn.Module]) -> None:
    watched = Watched(policy(network(width=8)))
    [played] = play_episodes(watched, DOOR, [3], target_return=1.0)
    assert len(watched.calls) == played.steps
    assert all(call[0].shape == (1, 1, 5) for call in watched.calls)  # each input is processed once
    seen, before, returns, outputs = (torch.cat(part, 1) for part in zip(*watched.calls, strict=True))
    with torch.no_grad():
        whole, _ = watched.policy(seen, before, returns)
    torch.testing.assert_close(outputs, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", [LSTM, ConvNet, Transformer], ids=lambda network: network.__name__)
def test_episodes_in_a_batch_equal_episodes_alone(network: type[nn.Module]) -> None:
    task = policy(network(width=8, depth=2), seen=4, choices=2)
    together = play_episodes(task, CART, range(12), target_return=50.0)
    assert together == [play_episodes(task, CART, [number], target_return=50.0)[0] for number in range(12)]
    assert play_episodes(task, CART, range(5, 12), target_return=50.0) == together[5:]
    assert len({played.steps for played in together}) > 3  # they end at different steps


@pytest.mark.numeric
def test_episodes_depend_on_seed_and_number_and_leave_other_generators_unchanged() -> None:
    task = policy(seen=4, choices=2)
    torch.manual_seed(5)
    first = play_episodes(task, CART, range(8), target_return=50.0)
    after = torch.rand(1)
    torch.manual_seed(6)
    assert play_episodes(task, CART, range(8), target_return=50.0) == first
    assert play_episodes(task, CART, range(8), target_return=50.0, seed=1) != first
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_the_return_to_go_is_the_target_return_less_the_rewards() -> None:
    watched = Watched(policy(seen=4, choices=2))
    [played] = play_episodes(watched, CART, [0], target_return=50.0)
    returns = torch.cat([call[2] for call in watched.calls], 1)[0]
    assert returns.tolist() == [50.0 - step for step in range(played.steps)]
    assert played.reward == played.steps  # CartPole rewards each step with one


def test_the_previous_action_is_an_input() -> None:
    watched = Watched(policy())
    done: list[int] = []

    def recorded() -> Any:
        game = DOOR()
        step = game.step
        game.step = lambda action: (done.append(action), step(action))[1]
        return game

    play_episodes(watched, recorded, [0], target_return=1.0, greedy=True)
    assert [int(call[1]) for call in watched.calls] == [-1, *done[:-1]]
    assert [int(call[3][0, 0].argmax()) for call in watched.calls] == done


def test_continuous_actions_stay_in_their_range() -> None:
    task = policy(seen=3, choices=0, low=[-2.0], high=[2.0])
    done: list[np.ndarray] = []

    def recorded() -> Any:
        game = make("Pendulum-v1", {})
        step = game.step
        game.step = lambda action: (done.append(action), step(action))[1]
        return game

    [played] = play_episodes(task, recorded, [0], target_return=0.0)
    assert played.steps == 200
    assert played.reward < 0
    assert np.abs(done).max() <= 2
    assert np.std(done) > 0.1
    assert done[0].shape == (1,)


def test_an_oracle_opens_every_door_and_a_random_policy_one_in_three() -> None:
    class Knows:
        actions = policy().actions

        def parameters(self) -> Any:
            return iter([torch.zeros(1)])

        def __call__(self, seen: torch.Tensor, before: Any, returns: Any, state: Any) -> Any:
            key = seen[:, 0, :3] * 50 if state is None else state
            return torch.cat([torch.zeros(len(seen), 1), key], 1)[:, None], key

    assert {played.reward for played in play_episodes(Knows(), DOOR, range(60), target_return=1.0)} == {1.0}
    guessed = [played.reward for played in play_episodes(policy(), DOOR, range(300), target_return=1.0)]
    assert 0.1 < np.mean(guessed) < 0.45


def test_an_unknown_environment_raises_an_error() -> None:
    with pytest.raises(ConfigError, match="environment Nothing-v0 cannot be created: Environment `Nothing` doesn't"):
        make("Nothing-v0", {})
    with pytest.raises(ConfigError, match=f"{KEY_TO_DOOR} cannot be created"):
        make(KEY_TO_DOOR, {"colour": 3})
