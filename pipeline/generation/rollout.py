"""Rollouts of a policy in an environment, batched over episodes.

Each step of the environments is one step of the network with its carried state. Rows of finished episodes are removed
from the state. Chen et al. (2021), "Decision Transformer": the target return, less the rewards so far, is an input at
each step.

The environment and the random numbers of an episode depend on the seed and its number alone. An episode is therefore
the same in any batch and on any number of processes.

Legend: B running episodes, O numbers of an observation, A of an action, P parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline import state as states

SIDE_BY_SIDE = 256  # maximum number of episodes per batch


class Played(NamedTuple):
    """The result of an episode."""

    reward: float
    """Sum of the rewards over all steps."""
    steps: int


@dataclass
class RunningEpisode:
    """A running episode.

    Args:
        environment: a Gymnasium environment, used by this episode alone.
        generator: generator of the environment's seed and of action samples.
        return_to_go: target return less the rewards so far.
        before: the previous action.
    """

    environment: Any
    generator: np.random.Generator
    return_to_go: float
    before: np.ndarray
    observation: np.ndarray = field(init=False)
    reward: float = 0.0
    steps: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        observation, _ = self.environment.reset(seed=int(self.generator.integers(2**31)))
        self.observation = np.asarray(observation, np.float64).reshape(-1)

    def act(self, action: np.ndarray) -> None:
        """Take one step of the environment."""
        done = int(action) if action.ndim == 0 else action.astype(np.float32)
        observation, reward, terminated, truncated, _ = self.environment.step(done)
        self.observation, self.before = np.asarray(observation, np.float64).reshape(-1), action
        self.reward, self.return_to_go = self.reward + reward, self.return_to_go - reward
        self.steps += 1
        self.over = bool(terminated or truncated)


@torch.no_grad()
def play_episodes(
    policy: Any,
    make: Callable[[], Any],
    numbers: Sequence[int],
    target_return: float,
    seed: int = 0,
    greedy: bool = False,
) -> list[Played]:
    """Run the episodes with these numbers.

    Args:
        policy: a `pipeline.tasks.policy.Policy` in evaluation mode.
        make: creates an environment.
        numbers: numbers of the episodes.
        target_return: return-to-go at the first step.
        seed: seed of all episodes.
        greedy: take the most probable action instead of sampling.
    """
    found: list[Played] = []
    for first in range(0, len(numbers), SIDE_BY_SIDE):
        episodes = [
            RunningEpisode(make(), np.random.default_rng((seed, number)), target_return, policy.actions.initial)
            for number in numbers[first : first + SIDE_BY_SIDE]
        ]
        _play(policy, episodes, greedy)
        found += [Played(episode.reward, episode.steps) for episode in episodes]
    return found


def _play(policy: Any, episodes: Sequence[RunningEpisode], greedy: bool) -> None:
    """Run all episodes to their ends."""
    like = next(policy.parameters())
    state, on = None, list(episodes)
    while on:
        seen, before, return_to_go = (torch.from_numpy(np.stack(part)).to(like.device) for part in _read(on))
        parameters, state = policy(seen[:, None], before[:, None], return_to_go[:, None].to(like), state)
        # Numbers are drawn in greedy mode too, so that both modes use the same numbers at the same step.
        numbers = np.stack([1 - episode.generator.random((2, policy.actions.draws)) for episode in on])
        uniform = torch.from_numpy(numbers).to(parameters)
        actions = policy.actions.best(parameters[:, 0]) if greedy else policy.actions.draw(parameters[:, 0], uniform)
        for episode, action in zip(on, actions.cpu().numpy(), strict=True):
            episode.act(np.asarray(action))
        left = [row for row, episode in enumerate(on) if not episode.over]
        if len(left) < len(on):
            state = states.select(state, torch.tensor(left, dtype=torch.int64, device=like.device))
            on = [on[row] for row in left]


def _read(episodes: Sequence[RunningEpisode]) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return the observation, the previous action and the return-to-go of each episode."""
    return_to_go = [np.array(episode.return_to_go, np.float32) for episode in episodes]
    return [episode.observation for episode in episodes], [episode.before for episode in episodes], return_to_go
