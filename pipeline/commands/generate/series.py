"""The front end of forecasters: forecast the steps after the last row of a table.

Legend: N series, L context steps, H horizon steps, K covariates, S sample paths.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from pipeline.commands.generate.trained import Trained, open_model
from pipeline.dataset.codecs.table import read_table
from pipeline.dataset.codecs.time_grid import Grid, cycles
from pipeline.dataset.codecs.time_series import Findings, Frame, TableLayout, filled, frames_of
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.runs.record import SERIES, read_record

if TYPE_CHECKING:  # torch takes seconds to import
    import pyarrow as pa

    from pipeline.evaluation.forecast_errors import Forecast
    from pipeline.evaluation.plots.forecast import Panel
    from pipeline.tasks.forecast_base import Forecasting


class Window(NamedTuple):
    """The end of a series, and the known covariates of the following steps."""

    name: str
    stamps: list[str]
    """Of the context and the horizon."""
    context: Float32[np.ndarray, " L"]
    """Standardised."""
    known: Float32[np.ndarray, "L+H K"]


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Forecast the next horizon of every series of a table.

    Raises:
        UserError: a checkpoint or table does not exist, or the table does not match the run's dataset.
    """
    if arguments.history is None:
        raise ConfigError(f"{trained} forecasts time series. Give their past with --history FILE.csv")
    record = _record(trained.run)
    about, context, horizon = record["dataset"]["series"], record["linked"]["context"], record["linked"]["horizon"]
    windows = windows_of(read_table(arguments.history), about, context, horizon, str(arguments.history[0]))
    _, task, device = open_model(trained.name, arguments.checkpoint)
    forecast = forecast_windows(task, windows, about["scaling"], device)
    rows = rows_of(windows, forecast, about["time"], horizon)
    try:
        _write(rows, arguments.output)
        if arguments.picture:
            from pipeline.evaluation.plots.figure import save
            from pipeline.evaluation.plots.forecast import drawing

            save(drawing(list(forecast_panels(windows, forecast, about["scaling"], horizon))), arguments.picture)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}. Give another file") from error
    except ValueError as error:
        raise ConfigError(
            f"--picture={arguments.picture}: cannot be written ({error}). Give a .svg or .png file"
        ) from error


def _record(run: Path) -> dict[str, Any]:
    """Read the record of a run, or the part of it that an exported model contains.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (file := run / SERIES).is_file():
        return read_record(run)
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def windows_of(table: "pa.Table", about: dict[str, Any], context: int, horizon: int, source: str) -> list[Window]:
    """Return the end of each series of a table, standardised as in training.

    Args:
        table: table in the layout of the dataset's source.
        about: entry of the series in the manifest.
        context: number of steps that the model reads.
        horizon: number of steps to forecast.
        source: name of the table, for error messages.

    Raises:
        DataError: a series is too short or unknown, or lacks known covariates over the horizon.
    """
    findings, layout = Findings(), TableLayout.of(about)
    grid, frames = frames_of(table, layout, findings, Grid.of(about))
    findings.refuse(source)
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
    task: "Forecasting", windows: Sequence[Window], scaling: Mapping[str, Sequence[float]], device: str = "cpu"
) -> "Forecast":
    """Return the forecast of each window, in the units of its series."""
    import torch

    from pipeline.data.batch import SeriesBatch
    from pipeline.evaluation.forecast_errors import Forecast, summary

    context, known = (
        torch.from_numpy(np.stack([getattr(window, name) for window in windows])) for name in ("context", "known")
    )
    rows, horizon = len(windows), known.shape[1] - context.shape[1]
    nothing = torch.zeros(rows, horizon), torch.zeros(rows, horizon, dtype=torch.bool)
    naive, ids = torch.zeros(rows, dtype=torch.float64), torch.arange(rows)
    parts = [part.to(device) for part in (context, *nothing, known, naive, ids)]
    batch = SeriesBatch._make([*parts, 0, 0, None])
    with torch.no_grad():
        forecast = summary(task.sample_paths(batch))
    scale = torch.tensor([scaling[window.name] for window in windows])
    return Forecast(*(scale[:, :1] + scale[:, 1:] * part.cpu() for part in forecast))


def rows_of(windows: Sequence[Window], forecast: "Forecast", time: str, horizon: int) -> Iterator[list[str]]:
    """Yield the table, a row per series and step: a point forecast, or mean and percentiles of sample paths."""
    one = bool((forecast.low == forecast.high).all())
    yield [time, "series", *(["forecast"] if one else ["mean", "p10", "p50", "p90"])]
    for row, window in enumerate(windows):
        for step, stamp in enumerate(window.stamps[-horizon:]):
            values = [forecast.mean] if one else [forecast.mean, forecast.low, forecast.median, forecast.high]
            yield [stamp, window.name, *(f"{float(part[row, step]):.6g}" for part in values)]


def forecast_panels(
    windows: Sequence[Window], forecast: "Forecast", scaling: Mapping[str, Sequence[float]], horizon: int
) -> "Iterator[Panel]":
    """Yield the panels of the plot: the last steps of each history, and the forecast."""
    from pipeline.evaluation.plots.forecast import Panel

    for row, window in enumerate(windows):
        mean, deviation = scaling[window.name]
        shown = min(len(window.context), 2 * horizon)
        marks = [window.stamps[-horizon - shown], window.stamps[-horizon], window.stamps[-1]]
        low, median, high = (part[row].numpy() for part in (forecast.low, forecast.median, forecast.high))
        yield Panel(window.name, marks, mean + deviation * window.context[-shown:], median, low, high)


def _write(rows: Iterator[list[str]], output: Path | None) -> None:
    if output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    with output.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
