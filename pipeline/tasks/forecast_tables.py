"""Forecasts for tables of past values, in the units of the tables.

Legend: L steps of the context, H steps of the horizon, K known covariates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from pipeline.data.batch import SeriesBatch
from pipeline.dataset.codecs.findings import MISSING, Findings
from pipeline.dataset.codecs.series_table import TableLayout
from pipeline.dataset.codecs.time_grid import Grid, cycles
from pipeline.dataset.codecs.time_series import Frame, check_steps, filled, frames_of, trimmed
from pipeline.errors import DataError
from pipeline.evaluation.forecast_errors import Forecast, summary

if TYPE_CHECKING:
    import pyarrow as pa


class Window(NamedTuple):
    """The end of a series, and the known covariates of the following steps."""

    name: str
    stamps: list[str]
    """Of the context and the horizon."""
    context: Float32[np.ndarray, " L"]
    """Standardised."""
    known: Float32[np.ndarray, "L+H K"]


def windows_of(table: "pa.Table", about: dict[str, Any], context: int, horizon: int, source: str) -> list[Window]:
    """Return the end of each series of a table, standardised as in training.

    Args:
        table: table in the layout of the dataset's source.
        about: entry of the series in the manifest.
        context: number of steps that the model reads.
        horizon: number of steps to forecast.
        source: name of the table, for error messages.

    Raises:
        DataError: a column is missing or unknown, the step differs, or a series is too short or unknown, has gaps
            although those of the dataset have none, or lacks known covariates over the horizon.
    """
    findings, layout = Findings(), TableLayout.of(about)
    layout.check_columns(table.column_names, source)
    grid, frames = frames_of(table, layout, findings, Grid.of(about))
    frames = [frame for frame in frames if frame.name not in about.get("dropped", ())]
    findings.refuse_texts(source)
    for frame in frames:
        check_steps(trimmed(frame), grid, findings)
    findings.refuse(source, (MISSING,) if about.get("fill_gaps", True) else ())
    if unknown := [frame.name for frame in frames if frame.name not in about["scaling"]]:
        raise DataError(f"{source}: series not in the training data: {', '.join(unknown[:5])}. Train on them, too")
    return [_window(frame, grid, layout, about, context, horizon) for frame in frames]


def _window(frame: Frame, grid: Grid, layout: TableLayout, about: dict[str, Any], context: int, horizon: int) -> Window:
    there = np.flatnonzero(~np.isnan(frame.values))
    after = int(there[-1]) + 1 if len(there) else 0
    if after - (int(there[0]) if len(there) else 0) < context:
        raise DataError(f"series {frame.name}: the model requires at least {context} steps. Give a longer history")
    values, _ = filled(frame.values[int(there[0]) : after])
    mean, deviation = about["scaling"][frame.name]
    first = after - context
    stamps = frame.start + grid.step * np.arange(first, after + horizon)
    given = len(layout.known)
    known = np.full((context + horizon, given), np.nan)
    rows = frame.known[first : after + horizon, :given]
    known[: len(rows)] = rows
    for name, ahead in zip(layout.known, known.T, strict=True):
        if np.isnan(ahead).any():
            [stamp] = grid.text(stamps[np.isnan(ahead)][:1])
            raise DataError(f"series {frame.name}: no value of {name} at {stamp}. Provide it over the whole horizon")
    if layout.calendar:
        known = np.concatenate([known, cycles(grid, stamps)[1]], 1)
    known = (known - about["covariate_mean"]) / about["covariate_deviation"] if known.shape[1] else known
    standard = (values[-context:] - mean) / deviation
    return Window(frame.name, grid.text(stamps), standard.astype(np.float32), known.astype(np.float32))


def forecast_windows(
    sample_paths: Callable[[SeriesBatch], Tensor],
    windows: Sequence[Window],
    scaling: Mapping[str, Sequence[float]],
    device: str = "cpu",
) -> Forecast:
    """Return the forecast of each window, in the units of its series.

    Args:
        sample_paths: method of a forecasting task, (B, S, H).
        windows: windows with contexts of the same length.
        scaling: mean and standard deviation of each series.
        device: device of the task.
    """
    context, known = (
        torch.from_numpy(np.stack([getattr(window, name) for window in windows])) for name in ("context", "known")
    )
    rows, horizon = len(windows), known.shape[1] - context.shape[1]
    nothing = torch.zeros(rows, horizon), torch.zeros(rows, horizon, dtype=torch.bool)
    naive, ids = torch.zeros(rows, dtype=torch.float64), torch.arange(rows)
    parts = [part.to(device) for part in (context, *nothing, known, naive, ids)]
    batch = SeriesBatch._make([*parts, 0, 0, None])
    with torch.no_grad():
        forecast = summary(sample_paths(batch))
    scale = torch.tensor([scaling[window.name] for window in windows], dtype=torch.float64)
    return Forecast(*(scale[:, :1] + scale[:, 1:] * part.cpu().double() for part in forecast))
