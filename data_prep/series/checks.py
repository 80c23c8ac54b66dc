"""What makes series unfit to learn from: gaps, columns that never change, covariates that tell the target.

Legend: L steps, K known covariates.
"""

import numpy as np
from jaxtyping import Float64

from pipeline.dataset.codecs.time_grid import Grid
from pipeline.dataset.codecs.time_series import INFINITE, MISSING, UNKNOWN, Findings, Frame, stretches

EMPTY = "series without any value", "--drop it"
CONSTANT = "series that is constant in its training part", "--drop it: there is nothing to learn and no scale"
SAYS_NOTHING = "known covariate that is constant in training", "--drop it"
LEAK = "known covariate that tells the target", "--drop it: it would not be known ahead"
SAME = 0.9999  # how alike the changes of two columns are where one is made of the other
FARTHEST = 1000  # steps between a copy and its original that are looked at


def trimmed(frame: Frame) -> Frame:
    """The series from its first to its last value; within its gaps, covariates repeat what was known before."""
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
    """Find what is missing or infinite in a series and its known covariates, and covariates that tell too much.

    Args:
        frame: the series, trimmed.
        grid: on which it lies.
        names: of the known covariates.
        findings: where it is added.
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
    """By how many steps a covariate runs ahead of a series that it is an affine copy of; None if of none.

    The cosine between the changes of both is 1 in size exactly for affine copies; it is taken at all shifts at
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
    # where there is next to no energy, rounding decides
    alike = np.where(energy > 1e-9 * energy.max(), np.abs(product) / np.sqrt(np.maximum(energy, 1e-300)), 0.0)
    best = int(alike.argmax())
    return best - farthest if alike[best] > SAME else None


def _correlated(
    left: Float64[np.ndarray, " L"], right: Float64[np.ndarray, " L"], farthest: int
) -> Float64[np.ndarray, " _"]:
    """Sum over t of left[t] right[t + k], for k from -farthest to farthest."""
    size = 1 << int(2 * len(left) - 1).bit_length()
    spectrum = np.fft.rfft(right, size) * np.conj(np.fft.rfft(left, size))
    sums = np.fft.irfft(spectrum, size)
    found: Float64[np.ndarray, " _"] = np.concatenate([sums[-farthest:], sums[: farthest + 1]])
    return found


def observed_mean(values: Float64[np.ndarray, " L"]) -> tuple[float, float]:
    """Mean and deviation of what was observed; NaN where nothing was."""
    seen = values[~np.isnan(values)]
    return (float(seen.mean()), float(seen.std())) if len(seen) else (np.nan, np.nan)


def seasonal_error(values: Float64[np.ndarray, " L"], season: int) -> float:
    """Mean absolute difference to one season before (Hyndman and Koehler 2006); 0 where it cannot be told."""
    errors = np.abs(values[season:] - values[:-season])
    seen = errors[~np.isnan(errors)]
    return float(seen.mean()) if len(seen) else 0.0
