"""Forecast errors as sums over steps, divided once over all processes.

Hyndman and Koehler (2006), "Another look at measures of forecast accuracy": MASE. Gneiting and Raftery (2007),
"Strictly Proper Scoring Rules, Prediction, and Estimation", equation 21: CRPS. With paths x_1 .. x_S of a step
with the actual value y, and q the error of the seasonal naive forecast in the training part of the series:
    MSE (mean(x) - y)^2,   MAE |median(x) - y|,   MASE |median(x) - y| / q
    CRPS mean |x_i - y| - 1/2 mean |x_i - x_j|, over i != j (unbiased: Zamo and Naveau 2018)
    coverage: the fraction of steps at which y is between the 10th and the 90th percentile of the paths

Legend: B windows, H steps of a horizon, S paths.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

LOW, HIGH = 0.1, 0.9  # interval of the coverage


class Forecast(NamedTuple):
    """Statistics of the sample paths at each step."""

    mean: Float[Tensor, "B H"]
    low: Float[Tensor, "B H"]
    median: Float[Tensor, "B H"]
    high: Float[Tensor, "B H"]


def summary(paths: Float[Tensor, "B S H"]) -> Forecast:
    """Return mean and percentiles of the paths at each step."""
    if paths.shape[1] == 1:
        return Forecast(*[paths[:, 0]] * 4)
    low, median, high = torch.quantile(paths, paths.new_tensor([LOW, 0.5, HIGH]), dim=1)
    return Forecast(paths.mean(1), low, median, high)


def crps(paths: Float[Tensor, "B S H"], actual: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
    """Return the continuous ranked probability score of each step; for one path, the absolute error."""
    count = paths.shape[1]
    miss = (paths - actual[:, None]).abs().mean(1)
    if count == 1:
        return miss
    # For sorted paths, the sum over pairs |x_i - x_j| is a sum of x_(i) weighted by rank.
    rank = torch.arange(1, count + 1, dtype=paths.dtype, device=paths.device)
    weight = (2 * rank - count - 1) / (count * (count - 1))
    return miss - torch.einsum("s,bsh->bh", weight, paths.sort(1).values)


class ForecastErrors(Metric):
    """Mean errors of paths over all observed steps."""

    full_state_update = False
    sums: Tensor
    steps: Tensor
    scaled_steps: Tensor
    sampled: Tensor

    NAMES = ("mse", "mae", "mase", "crps", "coverage")

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(len(self.NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("steps", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("scaled_steps", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sampled", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(
        self,
        paths: Float[Tensor, "B S H"],
        actual: Float[Tensor, "B H"],
        observed: Bool[Tensor, "B H"],
        naive_errors: Float[Tensor, " B"],
    ) -> None:
        """Add windows; a series with a naive error of zero has no MASE."""
        forecast = summary(paths)
        missed = (forecast.median - actual).abs().double()
        scaled = torch.where(naive_errors[:, None] > 0, missed / naive_errors[:, None].clamp(min=1e-12), 0.0)
        inside = (forecast.low <= actual) & (actual <= forecast.high)
        each = ((forecast.mean - actual).square(), missed, scaled, crps(paths, actual), inside)
        self.sums += torch.stack([torch.where(observed, part, 0).double().sum() for part in each])
        self.steps += observed.sum()
        self.scaled_steps += (observed & (naive_errors[:, None] > 0)).sum()
        self.sampled += observed.sum() * (paths.shape[1] > 1)

    def compute(self) -> dict[str, Tensor]:
        """Return the means by name: CRPS and coverage only with several paths, MASE only if defined."""
        steps = dict.fromkeys(self.NAMES, self.steps) | {"mase": self.scaled_steps}
        steps |= {"crps": self.sampled, "coverage": self.sampled}
        return {name: each / steps[name] for name, each in zip(self.NAMES, self.sums, strict=True) if steps[name]}


def mean_errors(errors: ForecastErrors) -> dict[str, float]:
    """Return the means by name, as floats."""
    return {name: float(value) for name, value in errors.compute().items()}
