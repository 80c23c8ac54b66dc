"""An action is one of several choices, or several numbers in a range: what a policy says of it, and what it costs.

Actions are drawn from uniform numbers, so a draw depends on nothing but them.

Legend: C choices, A numbers of an action, P parameters of a step, F features of an action; `*S` any axes of steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from pipeline.dataset.trajectories import no_action
from pipeline.tasks.likelihoods import Gaussian


class Actions(ABC):
    """What can be done at a step.

    Attributes:
        parameters: P, numbers that a policy gives for each step.
        features: F, numbers by which an action is read.
        draws: A, pairs of uniform numbers that an action is drawn from.
        nothing: stands where there was no action yet; its features are zeros.
    """

    parameters: int
    features: int
    draws: int
    nothing: np.ndarray

    @abstractmethod
    def read(self, done: Shaped[Tensor, "..."]) -> Float[Tensor, "*S F"]:
        """The features of actions."""

    @abstractmethod
    def nats(self, said: Float[Tensor, "*S P"], done: Shaped[Tensor, "..."]) -> Float[Tensor, "*S"]:
        """The negative log-likelihood of what was done."""

    @abstractmethod
    def draw(self, said: Float[Tensor, "B P"], chance: Float[Tensor, "B 2 A"]) -> Shaped[Tensor, "B ..."]:
        """An action for each row, by numbers that are uniform in (0, 1]."""

    @abstractmethod
    def best(self, said: Float[Tensor, "B P"]) -> Shaped[Tensor, "B ..."]:
        """The most probable actions."""


class Choices(Actions):
    """One of several choices, read as a vector with a one in its place.

    Args:
        choices: C.
    """

    draws, nothing = 1, no_action(0)

    def __init__(self, choices: int) -> None:
        self.parameters = self.features = choices

    def read(self, done: Int64[Tensor, "*S"]) -> Float[Tensor, "*S C"]:
        return F.one_hot(done.clamp(min=0), self.features).float() * (done >= 0)[..., None]

    def nats(self, said: Float[Tensor, "*S C"], done: Int64[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -said.log_softmax(-1).gather(-1, done[..., None])[..., 0]

    def draw(self, said: Float[Tensor, "B C"], chance: Float[Tensor, "B 2 1"]) -> Int64[Tensor, " B"]:
        """The first choice at which the sum of probabilities reaches the number."""
        reached = said.softmax(-1).cumsum(-1) < chance[:, 0]
        return reached.sum(-1).clamp(max=self.features - 1)

    def best(self, said: Float[Tensor, "B C"]) -> Int64[Tensor, " B"]:
        return said.argmax(-1)


class Numbers(Actions):
    """Numbers in a range: independent normal distributions over the range, scaled to -1 .. 1.

    Args:
        low: A, the least.
        high: A, the largest.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        self.low, self.high = list(low), list(high)
        self.features = self.draws = len(self.low)
        self.parameters = 2 * self.features
        self.nothing = no_action(self.features)
        self.likelihood = Gaussian()

    def read(self, done: Float[Tensor, "*S A"]) -> Float[Tensor, "*S A"]:
        middle, half = self._range(done)
        return ((done - middle) / half).nan_to_num(0.0)

    def nats(self, said: Float[Tensor, "*S P"], done: Float[Tensor, "*S A"]) -> Float[Tensor, "*S"]:
        return self.likelihood.loss(self._parts(said), self.read(done)).sum(-1)

    def draw(self, said: Float[Tensor, "B P"], chance: Float[Tensor, "B 2 A"]) -> Float[Tensor, "B A"]:
        return self._within(self.likelihood.draw(self._parts(said), *chance.unbind(1)))

    def best(self, said: Float[Tensor, "B P"]) -> Float[Tensor, "B A"]:
        return self._within(self._parts(said)[..., 0])

    def _parts(self, said: Tensor) -> Float[Tensor, "*S A 2"]:
        return self.likelihood.parts(said.reshape(*said.shape[:-1], self.features, 2))

    def _within(self, scaled: Tensor) -> Tensor:
        middle, half = self._range(scaled)
        return middle + half * scaled.clamp(-1, 1)

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = like.new_tensor(self.low), like.new_tensor(self.high)
        return (low + high) / 2, (high - low) / 2


def actions_of(spaces: Mapping[str, Any]) -> Actions:
    """The actions that a dataset describes."""
    return Choices(spaces["choices"]) if spaces["choices"] else Numbers(spaces["low"], spaces["high"])
