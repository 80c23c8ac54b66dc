"""Likelihoods of a forecast step and their losses: point forecasts, quantiles, and parametric distributions.

Parameters follow an affine transform of the values (`move`). Samples are computed from two uniform numbers that the
caller supplies, so a sample depends on nothing else.

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

SMALLEST = 1e-4  # least standard deviation in standardized units, which keeps likelihoods finite


class Likelihood(ABC):
    """The likelihood of a forecast step.

    Attributes:
        parameters: P, outputs of the network per step.
        draws: True if values can be sampled, False for a point forecast.
    """

    parameters: int = 1
    draws: bool = True

    @abstractmethod
    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """Map the network's outputs to parameters in their valid ranges."""

    @abstractmethod
    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        """Return the parameters of shift + scale * value; both broadcast to `*S`."""

    @abstractmethod
    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """Return the loss of each step."""

    @abstractmethod
    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """Draw a value for each pair of numbers that are uniform in (0, 1)."""


class SquaredError(Likelihood):
    """A point forecast with the squared error as loss, which predicts the mean."""

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
        """Return the point forecast itself."""
        return parts[..., 0]


class AbsoluteError(SquaredError):
    """A point forecast with the absolute error as loss, which predicts the median."""

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        return (parts[..., 0] - values).abs()


class Quantiles(Likelihood):
    """Quantile regression without quantile crossing (Koenker and Bassett 1978).

    The pinball loss of level q is max(q e, (q - 1) e) for the error e = value - quantile. The loss of a step is twice
    the mean over levels, which approaches the CRPS with many levels (Gneiting and Raftery 2007, section 4.2).

    Args:
        levels: quantile levels, increasing, in (0, 1).

    Raises:
        ValueError: the levels are empty, not increasing or outside (0, 1).
    """

    def __init__(self, levels: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)) -> None:
        rising = all(low < high for low, high in pairwise(levels))
        if not levels or not rising or not 0 < levels[0] <= levels[-1] < 1:
            raise ValueError(f"levels={list(levels)}: expected increasing numbers in (0, 1)")
        self.levels, self.parameters = tuple(levels), len(levels)

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """Return quantiles: the middle one, and nonnegative increments around it."""
        middle = self.parameters // 2
        centre = raw[..., middle : middle + 1]
        below = F.softplus(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
        above = F.softplus(raw[..., middle + 1 :]).cumsum(-1)
        return torch.cat([centre - below, centre, centre + above], -1)

    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        return shift[..., None] + scale[..., None] * parts

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        levels = torch.tensor(self.levels, dtype=parts.dtype).to(parts.device, non_blocking=True)
        error = values[..., None] - parts
        return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(-1)

    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """Sample by inverting the piecewise linear distribution function between the outermost quantiles."""
        levels = torch.tensor(self.levels, dtype=parts.dtype).to(parts.device, non_blocking=True)
        share = one.clamp(self.levels[0], self.levels[-1])
        above = torch.searchsorted(levels, share.contiguous()).clamp(1, max(1, self.parameters - 1))
        if self.parameters == 1:
            return parts[..., 0]
        low, high = (parts.gather(-1, place[..., None])[..., 0] for place in (above - 1, above))
        return low + (high - low) * (share - levels[above - 1]) / (levels[above] - levels[above - 1])


class Gaussian(Likelihood):
    """A normal distribution; the loss is the negative log-likelihood in nats."""

    parameters = 2

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """Return mean and standard deviation."""
        return torch.stack([raw[..., 0], F.softplus(raw[..., 1]) + SMALLEST], -1)

    def move(self, parts: Float[Tensor, "*S P"], shift: Tensor, scale: Tensor) -> Float[Tensor, "*S P"]:
        return torch.stack([shift + scale * parts[..., 0], scale * parts[..., 1]], -1)

    def loss(self, parts: Float[Tensor, "*S P"], values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        mean, deviation = parts.unbind(-1)
        return ((values - mean) / deviation).square() / 2 + deviation.log() + math.log(2 * math.pi) / 2

    def draw(
        self, parts: Float[Tensor, "*D P"], one: Float[Tensor, "*D"], two: Float[Tensor, "*D"]
    ) -> Float[Tensor, "*D"]:
        """Sample by the transform of Box and Muller (1958)."""
        mean, deviation = parts.unbind(-1)
        return mean + deviation * (-2 * one.log()).sqrt() * torch.cos(2 * math.pi * two)


class StudentT(Likelihood):
    """Student's t distribution, less sensitive to outliers than a normal one; negative log-likelihood in nats."""

    parameters = 3

    def parts(self, raw: Float[Tensor, "*S P"]) -> Float[Tensor, "*S P"]:
        """Return location, scale and degrees of freedom, which exceed 2 so that the variance is finite."""
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
        """Sample by Bailey (1994), "Polar Generation of Random Variates with the t-Distribution"."""
        location, scale, freedom = parts.unbind(-1)
        radius = (freedom * torch.expm1(-2 / freedom * one.log())).sqrt()
        return location + scale * radius * torch.cos(2 * math.pi * two)
