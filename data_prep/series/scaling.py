"""The scale of series and covariates, by their training parts, and series in that scale."""

import numpy as np
from jaxtyping import Float64

from data_prep.series.checks import CONSTANT, UNINFORMATIVE, UNTRAINED, is_constant, placeholder, seasonal_error
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.findings import Findings
from pipeline.dataset.codecs.time_series import Frame, filled
from pipeline.dataset.series import Series

Covariates = tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]  # mean and standard deviation


def scaling_of(
    frames: list[Frame],
    edges: list[tuple[int, ...]],
    given: int,
    known: list[str],
    findings: Findings,
    report: Report,
) -> tuple[dict[str, tuple[float, float]], Covariates]:
    """Return mean and standard deviation of the training part, for each series and for each known covariate.

    A series of a single value has the scale 1. Covariates are scaled over all series. Those of the calendar, after the
    first `given`, are not scaled.
    """
    training = [
        frame._replace(values=frame.values[: own[1]], known=frame.known[: own[1]])
        for frame, own in zip(frames, edges, strict=True)
    ]
    scaling = {}
    for frame, part in zip(frames, training, strict=True):
        seen = part.values[~np.isnan(part.values)]
        if is_constant(frame.values):
            report.note(frame.name, "series with a single value", f"{frame.values[0]:g}")
        elif not len(seen) or is_constant(seen):
            findings.add(CONSTANT if len(seen) else UNTRAINED, frame.name)
        if (value := placeholder(frame.values)) is not None:
            report.note(frame.name, "value that may stand for a missing one", f"{value:g}")
        alone = is_constant(frame.values) or not len(seen)
        mean, deviation = (frame.values[0], 1.0) if alone else _moments(seen)
        scaling[frame.name] = float(mean), float(deviation)
    means, deviations = np.zeros(len(known)), np.ones(len(known))
    if given:
        seen = np.concatenate([part.known[:, :given] for part in training])
        means[:given], deviations[:given] = _moments(seen)
        for name, values in zip(known, seen.T, strict=False):
            if is_constant(values):
                findings.add(UNINFORMATIVE, name)
    return scaling, (means, deviations)


def _moments(values: Float64[np.ndarray, "L *K"]) -> Covariates:
    """Return mean and standard deviation; squares of very large and very small values are beyond double precision."""
    exponent = np.frexp(np.abs(values).max(0))[1]
    scaled = np.ldexp(values, -exponent)
    return np.ldexp(scaled.mean(0), exponent), np.ldexp(scaled.std(0), exponent)


def standardised(
    frame: Frame,
    edges: tuple[int, ...],
    scaling: tuple[float, float],
    ahead: Covariates,
    season: int,
) -> Series:
    """Return a series standardised in double precision, with unobserved steps filled."""
    mean, deviation = scaling
    standard = (frame.values[: edges[-1]] - mean) / deviation
    values, observed = filled(standard)
    known = (frame.known[: edges[-1]] - ahead[0]) / ahead[1]
    error = seasonal_error(standard[: edges[1]], season)
    return Series(frame.name, frame.start, edges, error, values.astype(np.float32), observed, known.astype(np.float32))
