"""What every forecast has to beat: the last value, the last season, and a linear map fitted by least squares.

Ridge regression (Hoerl and Kennard 1970) from the context, less its last value, to the horizon: of the penalties
tried the one that is best on the validation split; in closed form, one map for all series.

Legend: B windows, L steps of a context, H of a horizon.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Baseline = Callable[[Tensor], Tensor]  # (B, L) -> (B, H)
PENALTIES = (1e-6, 1e-4, 1e-2, 1.0)  # in shares of the mean of the inputs' squares
ROWS = 4096  # windows read together


def fit_baselines(train: Any, validation: Any, season: int, device: torch.device) -> dict[str, Baseline]:
    """The baselines by name.

    Args:
        train: the windows that the linear map is fitted on.
        validation: the windows that its penalty is chosen by.
        season: steps after which a series repeats itself.
        device: where they compute.
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


def linear_errors(train: Any, validation: Any) -> dict[str, float]:
    """MSE and MAE of the linear map on the validation split."""
    matrix, squares, sizes, steps = ridge(train, validation).double(), 0.0, 0.0, 0
    for context, targets in _windows(validation):
        error = context[:, -1:] + _inputs(context) @ matrix - targets
        squares, sizes, steps = (
            squares + float(error.square().sum()),
            sizes + float(error.abs().sum()),
            steps + error.numel(),
        )
    return {"mse": squares / max(steps, 1), "mae": sizes / max(steps, 1)}


def ridge(train: Any, validation: Any) -> Float[Tensor, "_ H"]:
    """The linear map, and below it what it adds to every window."""
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
        inputs, wanted = _inputs(context), targets - context[:, -1:]
        misses += torch.stack([(inputs @ matrix - wanted).square().sum() for matrix in found])
    best: Tensor = found[int(misses.argmin())]
    return best.float()


def _inputs(context: Float[Tensor, "B L"]) -> Float[Tensor, "B _"]:
    """What the map reads: the context less its last value, and a one."""
    return torch.cat([context - context[:, -1:], torch.ones_like(context[:, :1])], 1)


def _windows(samples: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Contexts and targets of all windows without a gap in their horizons, in double precision."""
    for first in range(0, len(samples), ROWS):
        batch = samples.batch(np.arange(first, min(first + ROWS, len(samples))))
        whole = batch.observed.all(1)
        yield batch.context[whole].double(), batch.targets[whole].double()
