"""A policy is played in an environment: many episodes side by side, a step of the network for a step of each.

The state is carried, nothing is read twice, and the rows of episodes that are over leave it. Chen et al. (2021),
"Decision Transformer": the target return, less the rewards so far, is an input at each step.

An episode belongs to its number: its environment and its draws come from the seed and the number alone, so it is the
same beside any others and on any number of processes.

Legend: B episodes under way, O numbers of an observation, A of an action, P parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline import state as states

SIDE_BY_SIDE = 256  # episodes at most


class Played(NamedTuple):
    """How an episode went."""

    reward: float
    """The sum over its steps."""
    steps: int


@dataclass
class Game:
    """An episode under way.

    Args:
        environment: of Gymnasium, this episode's own.
        chance: draws what is left to chance.
        wanted: the return-to-go.
        before: the action before this step.
    """

    environment: Any
    chance: np.random.Generator
    wanted: float
    before: np.ndarray
    seen: np.ndarray = field(init=False)
    reward: float = 0.0
    steps: int = 0
    over: bool = False

    def __post_init__(self) -> None:
        seen, _ = self.environment.reset(seed=int(self.chance.integers(2**31)))
        self.seen = np.asarray(seen, np.float32).reshape(-1)

    def act(self, action: np.ndarray) -> None:
        """One step of the environment."""
        done = int(action) if action.ndim == 0 else action.astype(np.float32)
        seen, reward, terminated, truncated, _ = self.environment.step(done)
        self.seen, self.before = np.asarray(seen, np.float32).reshape(-1), action
        self.reward, self.wanted, self.steps = self.reward + reward, self.wanted - reward, self.steps + 1
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
    """Play the episodes of these numbers.

    Args:
        policy: a `pipeline.tasks.policy.Policy` in evaluation mode.
        make: makes an environment.
        numbers: of the episodes.
        target_return: return-to-go at the first step.
        seed: of all episodes.
        greedy: always the most probable action; else actions are drawn.
    """
    found: list[Played] = []
    for first in range(0, len(numbers), SIDE_BY_SIDE):
        games = [
            Game(make(), np.random.default_rng((seed, number)), target_return, policy.actions.initial)
            for number in numbers[first : first + SIDE_BY_SIDE]
        ]
        _play(policy, games, greedy)
        found += [Played(game.reward, game.steps) for game in games]
    return found


def _play(policy: Any, games: Sequence[Game], greedy: bool) -> None:
    """All of these to their ends."""
    like = next(policy.parameters())
    state, on = None, list(games)
    while on:
        seen, before, wanted = (torch.from_numpy(np.stack(part)).to(like.device) for part in _read(on))
        said, state = policy(seen[:, None].to(like), before[:, None], wanted[:, None].to(like), state)
        # drawn whether they are needed or not: the same ones at the same step
        chance = np.stack([1 - game.chance.random((2, policy.actions.draws)) for game in on])
        uniform = torch.from_numpy(chance).to(said)
        actions = policy.actions.best(said[:, 0]) if greedy else policy.actions.draw(said[:, 0], uniform)
        for game, action in zip(on, actions.cpu().numpy(), strict=True):
            game.act(np.asarray(action))
        left = [row for row, game in enumerate(on) if not game.over]
        if len(left) < len(on):
            state = states.select(state, torch.tensor(left, dtype=torch.int64, device=like.device))
            on = [on[row] for row in left]


def _read(games: Sequence[Game]) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """What is seen, what was done before, and the return-to-go, of each episode."""
    wanted = [np.array(game.wanted, np.float32) for game in games]
    return [game.seen for game in games], [game.before for game in games], wanted
