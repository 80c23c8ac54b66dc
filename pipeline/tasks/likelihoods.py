"""What a forecast says of a step: one number, a few quantiles, or a distribution; and what a miss costs.

Every outcome moves with its instance: if values are shifted and scaled, so is what is said of them. Values are
drawn from two uniform numbers each, so a draw depends on nothing but them.

Legend: P parameters of a step, Q quantile levels; `*S` any axes of steps, `*D` any axes of draws.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SMALLEST = 1e-4  # of a deviation, in standardised units: likelihoods stay finite


class Likelihood(ABC):
    """What a forecast says of each step.

    Attributes:
        parameters: numbers that the network gives for each step.
        draws: whether different values can be drawn; else there is one.
    """

    parameters: int = 1
    draws: bool = True

    @abstractmethod
    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """The parameters, in the ranges that they have, from what the network gives."""

    @abstractmethod
    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        """The parameters of shift + scale * value; both broadcast to `*S`."""

    @abstractmethod
    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """What each step costs."""

    @abstractmethod
    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """A value for each pair of numbers that are uniform in (0, 1)."""


class SquaredError(Likelihood):
    """One number a step; its cost is the squared error, so it aims at the mean."""

    draws = False

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        return raw

    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        return shift[..., None] + scale[..., None] * parts

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return (parts[..., 0] - values).square()

    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """The number itself."""
        return parts[..., 0]


class AbsoluteError(SquaredError):
    """One number a step; its cost is the absolute error, so it aims at the median."""

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return (parts[..., 0] - values).abs()


class Quantiles(Likelihood):
    """The values that lie above given shares of what may come (Koenker and Bassett 1978); they do not cross.

    A level q costs max(q e, (q - 1) e) of the error e = value - quantile; a step costs twice the mean over levels,
    which tends to the CRPS as levels get many (Gneiting and Raftery 2007, section 4.2).

    Args:
        levels: shares, rising, in (0, 1).

    Raises:
        ValueError: the levels are none, do not rise or leave (0, 1).
    """

    def __init__(self, levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)) -> None:
        rising = all(low < high for low, high in pairwise(levels))
        if not levels or not rising or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"levels={list(levels)} must rise within (0, 1)")
        self.levels, self.parameters = tuple(levels), len(levels)

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """The middle one, and around it steps that are never negative."""
        middle = self.parameters // 2
        centre = raw[..., middle : middle + 1]
        below = F.softplus(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
        above = F.softplus(raw[..., middle + 1 :]).cumsum(-1)
        return torch.cat([centre - below, centre, centre + above], -1)

    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        return shift[..., None] + scale[..., None] * parts

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        levels = parts.new_tensor(self.levels)
        error = values[..., None] - parts
        return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)

    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """The inverse of the distribution that is linear between the quantiles and has nothing outside them."""
        levels = parts.new_tensor(self.levels)
        share = one.clamp(self.levels[0], self.levels[-1])
        above = torch.searchsorted(levels, share.contiguous()).clamp(1, max(1, self.parameters - 1))
        if self.parameters == 1:
            return parts[..., 0]
        low, high = (parts.gather(-1, place[..., None])[..., 0] for place in (above - 1, above))
        return low + (high - low) * (share - levels[above - 1]) / (levels[above] - levels[above - 1])


class Gaussian(Likelihood):
    """A normal distribution; its cost is the negative log-likelihood in nats."""

    parameters = 2

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """Mean and deviation."""
        return torch.stack([raw[..., 0], F.softplus(raw[..., 1]) + SMALLEST], -1)

    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        return torch.stack([shift + scale * parts[..., 0], scale * parts[..., 1]], -1)

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        mean, deviation = parts.unbind(-1)
        return ((values - mean) / deviation).square() / 2 + deviation.log() + math.log(2 * math.pi) / 2

    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """By Box and Muller (1958)."""
        mean, deviation = parts.unbind(-1)
        return mean + deviation * (-2 * one.log()).sqrt() * torch.cos(2 * math.pi * two)


class StudentT(Likelihood):
    """Student's t distribution: far misses cost less than under a normal one; in nats, as the Gaussian."""

    parameters = 3

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """Location, scale and degrees of freedom, above 2 so that there is a variance."""
        location, scale, freedom = raw.unbind(-1)
        return torch.stack([location, F.softplus(scale) + SMALLEST, 2.01 + F.softplus(freedom)], -1)

    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        location, own, freedom = parts.unbind(-1)
        return torch.stack([shift + scale * location, scale * own, freedom], -1)

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        location, scale, freedom = parts.unbind(-1)
        half = (freedom + 1) / 2
        constant = torch.lgamma(freedom / 2) - torch.lgamma(half) + (math.pi * freedom).log() / 2
        return constant + scale.log() + half * torch.log1p(((values - location) / scale).square() / freedom)

    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """By Bailey (1994), "Polar Generation of Random Variates with the t-Distribution"."""
        location, scale, freedom = parts.unbind(-1)
        radius = (freedom * torch.expm1(-2 / freedom * one.log())).sqrt()
        return location + scale * radius * torch.cos(2 * math.pi * two)
