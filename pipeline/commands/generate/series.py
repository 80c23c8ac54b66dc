"""The front end of forecasters: forecast the steps after the last row of a table.

Legend: N series, L context steps, H horizon steps, K covariates, S sample paths.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.generate.trained import Trained, open_model
from pipeline.dataset.codecs.series_table import read_series_table
from pipeline.errors import ConfigError
from pipeline.runs.record import read_series_record

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.evaluation.forecast_errors import Forecast
    from pipeline.evaluation.plots.forecast import Panel
    from pipeline.tasks.forecast_tables import Window

PRECISION = 4  # decimal digits of a forecast after the leading digit of the standard deviation
LONGEST = 17  # digits of a float


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Forecast the next horizon of every series of a table.

    Raises:
        UserError: a checkpoint or table does not exist, or the table does not match the run's dataset.
    """
    if arguments.history is None:
        raise ConfigError(f"{trained} forecasts time series. Give their past with --history FILE.csv")
    from pipeline.tasks.forecast_tables import forecast_windows, windows_of

    record = read_series_record(trained.run)
    about, context, horizon = record["dataset"]["series"], record["linked"]["context"], record["linked"]["horizon"]
    table = read_series_table(arguments.history, header=about.get("header", True))
    windows = windows_of(table, about, context, horizon, str(arguments.history[0]))
    _, task, device = open_model(trained.name, arguments.checkpoint)
    forecast = forecast_windows(task.sample_paths, windows, about["scaling"], device)
    rows = rows_of(windows, forecast, about, horizon)
    try:
        _write(rows, arguments.output)
        if arguments.picture:
            from pipeline.evaluation.plots.figure import save
            from pipeline.evaluation.plots.forecast import drawing

            save(drawing(list(forecast_panels(windows, forecast, about["scaling"], horizon))), arguments.picture)
    except BrokenPipeError:  # the reader of the output has ended
        raise
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}. Give another file") from error


def rows_of(
    windows: "Sequence[Window]", forecast: "Forecast", about: Mapping[str, Any], horizon: int
) -> Iterator[list[str]]:
    """Yield the table, a row per series and step: a point forecast, or mean and percentiles of sample paths.

    Args:
        windows: the histories.
        forecast: their forecasts, in the units of the table.
        about: entry of the series in the manifest.
        horizon: number of steps.
    """
    one = bool((forecast.low == forecast.high).all())
    yield [about["time"] or "step", "series", *(["forecast"] if one else ["mean", "p10", "p50", "p90"])]
    for row, window in enumerate(windows):
        deviation = about["scaling"][window.name][1]
        for step, stamp in enumerate(window.stamps[-horizon:]):
            values = [forecast.mean] if one else [forecast.mean, forecast.low, forecast.median, forecast.high]
            yield [stamp, window.name, *(rounded(float(part[row, step]), deviation) for part in values)]


def rounded(value: float, deviation: float) -> str:
    """Return a number with the digits that a standard deviation makes significant, and those before the point."""
    if not value:
        return "0"
    decimals = max(0, PRECISION - floor(log10(deviation)))
    return f"{value:.{min(max(1, floor(log10(abs(value))) + 1 + decimals), LONGEST)}g}"


def forecast_panels(
    windows: "Sequence[Window]", forecast: "Forecast", scaling: Mapping[str, Sequence[float]], horizon: int
) -> "Iterator[Panel]":
    """Yield the panels of the plot: the last steps of each history, and the forecast."""
    from pipeline.evaluation.plots.forecast import Panel

    for row, window in enumerate(windows):
        mean, deviation = scaling[window.name]
        shown = min(len(window.context), 2 * horizon)
        marks = [window.stamps[-horizon - shown], window.stamps[-horizon], window.stamps[-1]]
        low, median, high = (part[row].numpy() for part in (forecast.low, forecast.median, forecast.high))
        context = mean + deviation * window.context[-shown:].astype(float)
        yield Panel(window.name, marks, context, median, low, high)


def _write(rows: Iterator[list[str]], output: Path | None) -> None:
    if output is None:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    with output.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
