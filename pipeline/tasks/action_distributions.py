"""Distributions over actions and their log-likelihood, for discrete and for continuous action spaces.

Samples are computed from uniform numbers that the caller supplies, so a sample depends on nothing else.

Legend: C choices, A numbers of an action, P parameters of a step, F features of an action; `*S` any axes of steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from pipeline.dataset.trajectories import no_action
from pipeline.tasks.likelihoods import Gaussian


class Actions(ABC):
    """An action space with a distribution over its actions.

    Attributes:
        parameters: P, outputs of a policy for each step.
        features: F, size of the vector that encodes an action.
        draws: A, pairs of uniform numbers per sampled action.
        initial: placeholder before the first action; its features are zeros.
    """

    parameters: int
    features: int
    draws: int
    initial: np.ndarray

    @abstractmethod
    def read(self, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "*S F"]:
        """Return the features of actions."""

    @abstractmethod
    def nats(self, parameters: Float[Tensor, "*S P"], actions: Shaped[Tensor, "..."]) -> Float[Tensor, "*S"]:
        """Return the negative log-likelihood of actions."""

    @abstractmethod
    def draw(self, parameters: Float[Tensor, "B P"], uniform: Float[Tensor, "B 2 A"]) -> Shaped[Tensor, "B ..."]:
        """Sample an action for each row from numbers that are uniform in (0, 1]."""

    @abstractmethod
    def best(self, parameters: Float[Tensor, "B P"]) -> Shaped[Tensor, "B ..."]:
        """Return the most probable actions."""


class Choices(Actions):
    """A discrete action, encoded as a one-hot vector.

    Args:
        choices: C.
    """

    draws, initial = 1, no_action(0)

    def __init__(self, choices: int) -> None:
        self.parameters = self.features = choices

    def read(self, actions: Int64[Tensor, "*S"]) -> Float[Tensor, "*S C"]:
        # Not one_hot, which reads its input on the host to check it.
        return (actions[..., None] == torch.arange(self.features, device=actions.device)).float()

    def nats(self, parameters: Float[Tensor, "*S C"], actions: Int64[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return -parameters.log_softmax(-1).gather(-1, actions[..., None])[..., 0]

    def draw(self, parameters: Float[Tensor, "B C"], uniform: Float[Tensor, "B 2 1"]) -> Int64[Tensor, " B"]:
        """Return the first choice at which the cumulative probability reaches the uniform number."""
        reached = parameters.softmax(-1).cumsum(-1) < uniform[:, 0]
        return reached.sum(-1).clamp(max=self.features - 1)

    def best(self, parameters: Float[Tensor, "B C"]) -> Int64[Tensor, " B"]:
        return parameters.argmax(-1)


class Numbers(Actions):
    """A continuous action with independent normal distributions over its range, scaled to [-1, 1].

    Args:
        low: A, lower bounds.
        high: A, upper bounds.
    """

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        self.low, self.high = list(low), list(high)
        self.features = self.draws = len(self.low)
        self.parameters = 2 * self.features
        self.initial = no_action(self.features)
        self.likelihood = Gaussian()

    def read(self, actions: Float[Tensor, "*S A"]) -> Float[Tensor, "*S A"]:
        middle, half = self._range(actions)
        return ((actions - middle) / half).nan_to_num(0.0)

    def nats(self, parameters: Float[Tensor, "*S P"], actions: Float[Tensor, "*S A"]) -> Float[Tensor, "*S"]:
        return self.likelihood.loss(self._parts(parameters), self.read(actions)).sum(-1)

    def draw(self, parameters: Float[Tensor, "B P"], uniform: Float[Tensor, "B 2 A"]) -> Float[Tensor, "B A"]:
        return self._within(self.likelihood.draw(self._parts(parameters), *uniform.unbind(1)))

    def best(self, parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B A"]:
        return self._within(self._parts(parameters)[..., 0])

    def _parts(self, parameters: Tensor) -> Float[Tensor, "*S A 2"]:
        return self.likelihood.parts(parameters.reshape(*parameters.shape[:-1], self.features, 2))

    def _within(self, scaled: Tensor) -> Tensor:
        middle, half = self._range(scaled)
        return middle + half * scaled.clamp(-1, 1)

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.tensor([self.low, self.high], dtype=like.dtype).to(like.device, non_blocking=True)
        return (low + high) / 2, (high - low) / 2


def actions_of(spaces: Mapping[str, Any]) -> Actions:
    """Return the action space that a dataset describes."""
    return Choices(spaces["choices"]) if spaces["choices"] else Numbers(spaces["low"], spaces["high"])
