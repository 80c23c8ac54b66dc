"""The front end of forecasters: what comes after the last row of a table, as a table.

Legend: N series, L steps of a context, H of a horizon, K covariates, S paths.
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

if TYPE_CHECKING:  # torch takes seconds to import: only once there is something to do
    from pipeline.evaluation.forecast_errors import Forecast
    from pipeline.evaluation.plots.forecast import Panel


class Window(NamedTuple):
    """The end of a series, and what is known of the steps after it."""

    name: str
    stamps: list[str]
    """Of the context and the horizon."""
    context: Float32[np.ndarray, " L"]
    """Standardised."""
    known: Float32[np.ndarray, "L+H K"]


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Forecast the next horizon of every series of a table.

    Raises:
        UserError: no such checkpoint or table, or a table that does not go on from what the run has learned.
    """
    if arguments.history is None:
        raise ConfigError(f"{trained.name} forecasts series: give what came before, --history FILE.csv")
    record = _record(trained.run)
    about, context, horizon = record["dataset"]["series"], record["linked"]["context"], record["linked"]["horizon"]
    windows = windows_of(read_table(arguments.history), about, context, horizon, str(arguments.history[0]))
    _, task, device = open_model(trained.name, arguments.checkpoint)
    said = forecast_windows(task, windows, about["scaling"], device)
    rows = rows_of(windows, said, about["time"], horizon)
    try:
        _write(rows, arguments.output)
        if arguments.picture:
            from pipeline.evaluation.plots.figure import save
            from pipeline.evaluation.plots.forecast import drawing

            save(drawing(list(forecast_panels(windows, said, about["scaling"], horizon))), arguments.picture)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}; name another file") from error
    except ValueError as error:
        raise ConfigError(f"--picture {arguments.picture} cannot be written ({error}): name a .svg or .png") from error


def _record(run: Path) -> dict[str, Any]:
    """What a run says of its data, or what an exported model has kept of that.

    Raises:
        CheckpointError: it is damaged.
    """
    if not (file := run / SERIES).is_file():
        return read_record(run)
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error


def windows_of(table: Any, about: dict[str, Any], context: int, horizon: int, source: str) -> list[Window]:
    """The end of each series of a table, in the units that the model reads.

    Args:
        table: laid out as the dataset's source.
        about: what the manifest says of the series.
        context: steps that are read.
        horizon: steps that are predicted.
        source: what the table is called.

    Raises:
        DataError: a series is too short, unknown, or lacks what is known ahead.
    """
    findings, layout = Findings(), TableLayout.of(about)
    grid, frames = frames_of(table, layout, findings, Grid(about["unit"], about["step"]))
    findings.refuse(source)
    if unknown := [frame.name for frame in frames if frame.name not in about["scaling"]]:
        raise DataError(f"{source}: the model does not know the scale of {', '.join(unknown[:5])}: train on it too")
    return [_window(frame, grid, layout, about, context, horizon) for frame in frames]


def _window(frame: Frame, grid: Grid, layout: TableLayout, about: dict[str, Any], context: int, horizon: int) -> Window:
    there = np.flatnonzero(~np.isnan(frame.values))
    after = int(there[-1]) + 1 if len(there) else 0
    if after - (int(there[0]) if len(there) else 0) < context:
        raise DataError(f"{frame.name} has fewer than the {context} steps that the model reads: give a longer history")
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
            raise DataError(f"{name} of {frame.name} is not given at {stamp}: it has to be known over the horizon")
    if layout.calendar:
        known = np.concatenate([known, cycles(grid, stamps)[1]], 1)
    known = (known - about["covariate_mean"]) / about["covariate_deviation"] if known.shape[1] else known
    standard = (values[-context:] - mean) / deviation
    return Window(frame.name, grid.text(stamps), standard.astype(np.float32), known.astype(np.float32))


def forecast_windows(
    task: Any, windows: Sequence[Window], scaling: Mapping[str, Sequence[float]], device: str = "cpu"
) -> "Forecast":
    """The forecast of each window, in the units of its series."""
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
        said = summary(task.sample_paths(batch))
    scale = torch.tensor([scaling[window.name] for window in windows])
    return Forecast(*(scale[:, :1] + scale[:, 1:] * part.cpu() for part in said))


def rows_of(windows: Sequence[Window], said: "Forecast", time: str, horizon: int) -> Iterator[list[str]]:
    """The table: a row for each series and step; one number where nothing was drawn, else mean and percentiles."""
    one = bool((said.low == said.high).all())
    yield [time, "series", *(["forecast"] if one else ["mean", "p10", "p50", "p90"])]
    for row, window in enumerate(windows):
        for step, stamp in enumerate(window.stamps[-horizon:]):
            values = [said.mean] if one else [said.mean, said.low, said.median, said.high]
            yield [stamp, window.name, *(f"{float(part[row, step]):.6g}" for part in values)]


def forecast_panels(
    windows: Sequence[Window], said: "Forecast", scaling: Mapping[str, Sequence[float]], horizon: int
) -> "Iterator[Panel]":
    """What is drawn: the last steps of each history, and the forecast."""
    from pipeline.evaluation.plots.forecast import Panel

    for row, window in enumerate(windows):
        mean, deviation = scaling[window.name]
        shown = min(len(window.context), 2 * horizon)
        marks = [window.stamps[-horizon - shown], window.stamps[-horizon], window.stamps[-1]]
        low, median, high = (part[row].numpy() for part in (said.low, said.median, said.high))
        yield Panel(window.name, marks, mean + deviation * window.context[-shown:], median, low, high)


def _write(rows: Iterator[list[str]], output: Path | None) -> None:
    if output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    with output.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
