"""Checks of series before training: gaps, constant columns, covariates that reveal the target.

Legend: L steps, K known covariates.
"""

import numpy as np
from jaxtyping import Float64

from pipeline.dataset.codecs.time_grid import Grid
from pipeline.dataset.codecs.time_series import INFINITE, MISSING, UNKNOWN, Findings, Frame, stretches

EMPTY = "series without any value", "--drop it"
CONSTANT = "series that is constant in its training part", "--drop it: it has no scale"
UNINFORMATIVE = "known covariate that is constant in training", "--drop it"
LEAK = "known covariate that reveals the target", "--drop it: it is not known ahead"
SAME = 0.9999  # cosine between the changes of two columns above which one is a copy of the other
FARTHEST = 1000  # maximum number of steps between a copy and its original


def trimmed(frame: Frame) -> Frame:
    """Return the series from its first to its last value; covariates are repeated within its gaps."""
    there = np.flatnonzero(~np.isnan(frame.values))
    if not len(there):
        return frame._replace(values=frame.values[:0], known=frame.known[:0])
    first, after = there[0], there[-1] + 1
    values, known = frame.values[first:after], frame.known[first:after]
    gap = np.isnan(values)[:, None] & np.isnan(known)
    last = np.maximum.accumulate(np.where(gap, 0, np.arange(len(values))[:, None]))
    start = frame.start + int(first) * frame.step
    return Frame(frame.name, start, frame.step, values, np.take_along_axis(known, last, 0))


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
    for first, length in stretches(np.isnan(frame.values)):
        [stamp] = grid.text(np.array([frame.start + first * grid.step]))
        findings.add(MISSING, f"{frame.name} from {stamp}: {length}", length)
    if np.isinf(frame.values).any():
        findings.add(INFINITE, frame.name, int(np.isinf(frame.values).sum()))
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


def observed_mean(values: Float64[np.ndarray, " L"]) -> tuple[float, float]:
    """Return mean and standard deviation of the observed values; NaN if there are none."""
    seen = values[~np.isnan(values)]
    return (float(seen.mean()), float(seen.std())) if len(seen) else (np.nan, np.nan)


def seasonal_error(values: Float64[np.ndarray, " L"], season: int) -> float:
    """Return the mean absolute difference to one season before (Hyndman and Koehler 2006); 0 if there is none."""
    errors = np.abs(values[season:] - values[:-season])
    seen = errors[~np.isnan(errors)]
    return float(seen.mean()) if len(seen) else 0.0
