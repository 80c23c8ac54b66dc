"""`unroll generate RUN --history FILE` forecasts the steps after a table, in its units."""

import csv
import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.commands.generate import series
from pipeline.commands.generate.series import rows_of
from pipeline.commands.generate.trained import Trained
from pipeline.data.series import SeriesDataModule
from pipeline.dataset.codecs.table import read_table
from pipeline.errors import DataError
from pipeline.models.gru import GRU
from pipeline.tasks import forecast_tables
from pipeline.tasks.forecast_tables import forecast_windows, windows_of
from pipeline.tasks.forecaster import Forecaster, ForecastSettings
from pipeline.tasks.likelihoods import Quantiles


@pytest.fixture
def about(tiny_series_dataset: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tiny_series_dataset / "dataset.json").read_text())["series"]
    return found


@pytest.fixture
def history(tiny_series_dataset: Path) -> Any:
    """The source of the tiny dataset, without values in its last four hours."""
    table = read_table([tiny_series_dataset.parent / "table.csv"])
    values = table.column("value").to_pylist()
    values[-12:] = [""] * 12
    return table.set_column(table.column_names.index("value"), "value", pa.array(values))


@pytest.mark.numeric
def test_a_history_is_forecast_as_the_same_window_of_the_dataset(
    tiny_series_dataset: Path, about: dict[str, Any], history: Any
) -> None:
    torch.manual_seed(1)
    task = Forecaster(GRU(width=8, depth=1), 4, 1, ForecastSettings(likelihood=Quantiles([0.1, 0.5, 0.9]))).eval()
    windows = windows_of(history, about, 12, 4, "history")
    assert [window.name for window in windows] == ["north", "south", "west"]
    samples = SeriesDataModule(tiny_series_dataset, 12, 4).samples("test")
    ends = np.flatnonzero(samples.places[:, 1] - samples.split.first_steps[samples.places[:, 0]] == 236)
    batch = samples.batch(ends)
    for row, window in enumerate(windows):
        np.testing.assert_allclose(window.context, batch.context[row], atol=1e-5)
        np.testing.assert_allclose(window.known, batch.known[row], atol=1e-5)
    forecast = forecast_windows(task.sample_paths, windows, about["scaling"])
    parts = task(batch)
    mean, deviation = about["scaling"]["south"]
    drawn = torch.quantile(task.sample_paths(batch._replace(ids=torch.arange(3))), 0.5, dim=1)
    torch.testing.assert_close(forecast.median[1], mean + deviation * drawn[1].double(), rtol=1e-4, atol=1e-4)
    assert parts.shape == (3, 4, 3)
    rows = list(rows_of(windows, forecast, about, 4))
    assert rows[0] == ["time", "series", "mean", "p10", "p50", "p90"]
    assert [row[:2] for row in rows[5:7]] == [["2020-01-10 20:00", "south"], ["2020-01-10 21:00", "south"]]
    assert all(float(row[3]) <= float(row[4]) <= float(row[5]) for row in rows[1:])


def test_short_or_unknown_series_and_missing_covariates_are_named(about: dict[str, Any], history: Any) -> None:
    with pytest.raises(DataError, match=r"series north: no value of price at 2020-01-11 00:00"):
        windows_of(history, about, 12, 5, "history")
    with pytest.raises(DataError, match=r"series north: the model requires at least 300 steps"):
        windows_of(history, about, 300, 4, "history")
    names = pa.array([f"new {name}" for name in history.column("name").to_pylist()])
    strange = history.set_column(history.column_names.index("name"), "name", names)
    with pytest.raises(DataError, match=r"not in the training data: new north, new south, new west"):
        windows_of(strange, about, 12, 4, "history")


def test_the_forecast_is_written_to_a_file(tmp_path: Path) -> None:
    from pipeline.commands.generate.series import _write

    _write(iter([["time", "series"], ["1", "a"]]), tmp_path / "out.csv")
    assert list(csv.reader((tmp_path / "out.csv").open())) == [["time", "series"], ["1", "a"]]


def test_a_reader_that_closes_the_pipe_is_not_an_error_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any) -> None:
        raise BrokenPipeError

    record = {"dataset": {"series": {"scaling": {}}}, "linked": {"context": 1, "horizon": 1}}
    for name, value in {
        "read_series_record": record,
        "read_series_table": None,
        "open_model": (None, SimpleNamespace(sample_paths=None), "cpu"),
    }.items():
        monkeypatch.setattr(series, name, lambda *_, value=value, **__: value)
    for name in ("windows_of", "forecast_windows"):
        monkeypatch.setattr(forecast_tables, name, lambda *_: None)
    monkeypatch.setattr(series, "_write", closed)
    arguments = Namespace(history=[Path("history.csv")], checkpoint="best", output=None, picture=None)
    with pytest.raises(BrokenPipeError):
        series.main(Trained("run", Path(), Forecaster), arguments)
