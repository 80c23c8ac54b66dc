"""Baselines of forecasts: the last value, the last season, and a linear map fitted by least squares.

The linear map is ridge regression (Hoerl and Kennard 1970) in closed form from the context, less its last value, to
the horizon. One map serves all series, with the penalty that is best on the validation split.

Legend: B windows, L steps of a context, H of a horizon.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
class WindowBatch(Protocol):
    """A batch of windows."""

    @property
    def context(self) -> Tensor:
        """Values of the contexts (B, L)."""

    @property
    def targets(self) -> Tensor:
        """Values of the horizons (B, H)."""

    @property
    def observed(self) -> Tensor:
        """True where a target was observed (B, H)."""


@runtime_checkable
class WindowSamples(Protocol):
    """The windows of a split."""

    context: int
    horizon: int

    def __len__(self) -> int:
        """Number of windows."""

    def batch(self, ids: Int64[np.ndarray, " B"]) -> WindowBatch:
        """Return the windows with these numbers."""


Baseline = Callable[[Tensor], Tensor]  # (B, L) -> (B, H)
PENALTIES = (1e-6, 1e-4, 1e-2, 1.0)  # relative to the mean of the squared inputs
ROWS = 4096  # windows per batch


def fit_baselines(
    train: WindowSamples, validation: WindowSamples, season: int, device: torch.device
) -> dict[str, Baseline]:
    """Return the baselines by name.

    Args:
        train: windows on which the linear map is fitted.
        validation: windows on which its penalty is selected.
        season: period of the seasonality in steps.
        device: device of the baselines.
    """
    horizon = train.horizon
    matrix = ridge(train, validation).to(device)

    def naive(context: Float[Tensor, "B L"]) -> Float[Tensor, "B H"]:
        return context[:, -1:].expand(-1, horizon)

    def seasonal(context: Float[Tensor, "B L"]) -> Float[Tensor, "B H"]:
        last = min(season, context.shape[1])
        steps = torch.arange(horizon, device=context.device) % last
        return context[:, context.shape[1] - last + steps]

    def linear(context: Float[Tensor, "B L"]) -> Float[Tensor, "B H"]:
        last = context[:, -1:]
        return last + _inputs(context) @ matrix

    return {"naive": naive, "seasonal": seasonal, "linear": linear}


def linear_errors(train: WindowSamples, validation: WindowSamples) -> dict[str, float]:
    """Return MSE and MAE of the linear map on the validation split."""
    matrix, squares, sizes, steps = ridge(train, validation).double(), 0.0, 0.0, 0
    for context, targets in _windows(validation):
        error = context[:, -1:] + _inputs(context) @ matrix - targets
        squares, sizes, steps = (
            squares + float(error.square().sum()),
            sizes + float(error.abs().sum()),
            steps + error.numel(),
        )
    return {"mse": squares / max(steps, 1), "mae": sizes / max(steps, 1)}


def ridge(train: WindowSamples, validation: WindowSamples) -> Float[Tensor, "_ H"]:
    """Return the matrix of the linear map, with the bias in the last row."""
    size = train.context + 1
    squares = torch.zeros(size, size, dtype=torch.float64)
    products = torch.zeros(size, train.horizon, dtype=torch.float64)
    for context, targets in _windows(train):
        inputs = _inputs(context)
        squares += inputs.T @ inputs
        products += inputs.T @ (targets - context[:, -1:])
    unit = squares.diagonal().mean() * torch.eye(size, dtype=squares.dtype)
    found = [torch.linalg.solve(squares + penalty * unit, products) for penalty in PENALTIES]
    misses = torch.zeros(len(found), dtype=squares.dtype)
    for context, targets in _windows(validation):
        inputs, expected = _inputs(context), targets - context[:, -1:]
        misses += torch.stack([(inputs @ matrix - expected).square().sum() for matrix in found])
    best: Tensor = found[int(misses.argmin())]
    return best.float()


def _inputs(context: Float[Tensor, "B L"]) -> Float[Tensor, "B _"]:
    """Return the inputs of the linear map: the context less its last value, and a one."""
    return torch.cat([context - context[:, -1:], torch.ones_like(context[:, :1])], 1)


def _windows(samples: WindowSamples) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield contexts and targets of all windows whose horizons are fully observed, in double precision."""
    for first in range(0, len(samples), ROWS):
        batch = samples.batch(np.arange(first, min(first + ROWS, len(samples))))
        whole = batch.observed.all(1)
        yield batch.context[whole].double(), batch.targets[whole].double()
