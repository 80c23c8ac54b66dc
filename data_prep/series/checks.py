"""Checks of series before training: gaps, constant columns, covariates that reveal the target.

Legend: L steps, K known covariates.
"""

import numpy as np
from jaxtyping import Float64

from pipeline.dataset.codecs.findings import UNKNOWN, Findings
from pipeline.dataset.codecs.time_grid import Grid
from pipeline.dataset.codecs.time_series import Frame, check_steps

EMPTY = "series without any value", "--drop it"
CONSTANT = "series that is constant in its training part and varies later", "--drop it: it has no scale"
UNTRAINED = "series without a value in its training part", "--drop it, or change the splits"
UNINFORMATIVE = "known covariate that is constant in training", "--drop it"
LEAK = "known covariate that reveals the target", "--drop it: it is not known ahead"
SAME = 0.9999  # cosine between the changes of two columns above which one is a copy of the other
FARTHEST = 1000  # maximum number of steps between a copy and its original


def check_values(frame: Frame, grid: Grid, names: list[str], findings: Findings) -> None:
    """Find missing and infinite values of a series and its known covariates, and covariates that reveal the target.

    Args:
        frame: the series, trimmed.
        grid: grid of the series.
        names: names of the known covariates.
        findings: problems are added here.
    """
    if not len(frame.values):
        findings.add(EMPTY, frame.name)
        return
    check_steps(frame, grid, findings)
    if np.isinf(frame.values).any():
        return
    for name, ahead in zip(names, frame.known.T, strict=False):
        missing = ~np.isfinite(ahead)
        if missing.any():
            [stamp] = grid.text(np.array([frame.start + int(missing.argmax()) * grid.step]))
            findings.add(UNKNOWN, f"{name} of {frame.name} at {stamp}", int(missing.sum()))
        elif (lead := leak(frame.values, ahead)) is not None:
            when = f"{abs(lead)} steps {'ahead' if lead > 0 else 'late'}" if lead else "at the same step"
            findings.add(LEAK, f"{name} is {frame.name} {when}")


def leak(values: Float64[np.ndarray, " L"], known: Float64[np.ndarray, " L"]) -> int | None:
    """Return by how many steps a covariate leads a series of which it is an affine copy; None if it is not a copy.

    The absolute cosine between the changes of both is 1 exactly for affine copies. It is computed at all shifts at
    once by Fourier transforms.
    """
    steps, moves = np.diff(values), np.diff(known)
    there = ~np.isnan(steps)
    steps = np.where(there, steps, 0.0)
    size = len(steps)
    farthest = min(FARTHEST, size // 2)
    if farthest < 1 or not moves.any() or not steps.any():
        return None
    steps, moves = steps / np.abs(steps).max(), moves / np.abs(moves).max()  # squares stay within double precision
    product = _correlated(moves, steps, farthest)
    energy = _correlated(moves**2, there.astype(float), farthest) * _correlated(np.ones(size), steps**2, farthest)
    # With very little energy, the quotient is rounding error.
    alike = np.where(energy > 1e-9 * energy.max(), np.abs(product) / np.sqrt(np.maximum(energy, 1e-300)), 0.0)
    best = int(alike.argmax())
    return best - farthest if alike[best] > SAME else None


def _correlated(
    left: Float64[np.ndarray, " L"], right: Float64[np.ndarray, " L"], farthest: int
) -> Float64[np.ndarray, " _"]:
    """Return the sums over t of left[t] right[t + k], for k from -farthest to farthest."""
    size = 1 << int(2 * len(left) - 1).bit_length()
    spectrum = np.fft.rfft(right, size) * np.conj(np.fft.rfft(left, size))
    sums = np.fft.irfft(spectrum, size)
    found: Float64[np.ndarray, " _"] = np.concatenate([sums[-farthest:], sums[: farthest + 1]])
    return found


def is_constant(values: Float64[np.ndarray, " _"]) -> bool:
    """Return whether values differ by rounding only, relative to their size; NaN is not a value."""
    seen = values[~np.isnan(values)]
    return bool(len(seen) and np.ptp(seen) <= 4 * np.spacing(np.abs(seen).max()))


def placeholder(values: Float64[np.ndarray, " _"]) -> float | None:
    """Return a value of nines, such as -9999, that occurs repeatedly and far from all other values; else None."""
    seen = values[~np.isnan(values)]
    for value, others in ((each, seen[seen != each]) for each in ((seen.min(), seen.max()) if len(seen) else ())):
        nines = {*f"{abs(value):g}"} == {"9"} and abs(value) > 9
        if nines and len(others) and len(seen) - len(others) > 1 and np.abs(others - value).min() > np.ptp(others) > 0:
            return float(value)
    return None


def seasonal_error(values: Float64[np.ndarray, " L"], season: int) -> float:
    """Return the mean absolute difference to one season before (Hyndman and Koehler 2006); 0 if there is none."""
    errors = np.abs(values[season:] - values[:-season])
    seen = errors[~np.isnan(errors)]
    return float(seen.mean()) if len(seen) else 0.0
