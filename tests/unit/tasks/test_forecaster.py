"""Forecasters: causality, sample paths through the carried state, and instance normalization."""

import copy

import pytest
import torch
from torch import nn

from pipeline.data.batch import SeriesBatch
from pipeline.models.assemblies.patch_transformer import PatchTransformerForecaster
from pipeline.models.conv import ConvNet
from pipeline.models.dlinear import DLinear, DLinearForecaster
from pipeline.models.lstm import LSTM
from pipeline.models.transformer import Transformer
from pipeline.tasks.forecast_base import Forecasting
from pipeline.tasks.forecaster import Forecaster, ForecastSettings, WindowForecaster
from pipeline.tasks.likelihoods import Gaussian, Quantiles, StudentT

CONTEXT, HORIZON = 20, 6


def batch(rows: int = 3, covariates: int = 2) -> SeriesBatch:
    torch.manual_seed(3)
    values, known = torch.randn(rows, CONTEXT + HORIZON), torch.randn(rows, CONTEXT + HORIZON, covariates)
    observed, ids = torch.ones(rows, HORIZON, dtype=torch.bool), torch.arange(rows)
    naive = torch.ones(rows, dtype=torch.float64)
    return SeriesBatch(values[:, :CONTEXT], values[:, CONTEXT:], observed, known, naive, ids, rows * HORIZON, 0)


def forecaster(network: nn.Module | None = None, covariates: int = 2, **forecast: object) -> Forecaster:
    torch.manual_seed(1)
    return Forecaster(network or LSTM(width=8, depth=1), HORIZON, covariates, ForecastSettings(**forecast)).eval()


@pytest.mark.numeric
@pytest.mark.parametrize("network", [LSTM, ConvNet, Transformer])
@pytest.mark.parametrize("chunk_length", [1, 2])
def test_paths_through_the_state_equal_paths_from_the_whole_input(network: type[nn.Module], chunk_length: int) -> None:
    task, given = (
        forecaster(network(width=8, depth=2), likelihood=StudentT(), chunk_length=chunk_length, num_samples=3),
        batch(),
    )
    rolled = task.sample_paths(given)
    noise = task._noise(given.ids)
    for path in range(3):
        targets = torch.zeros(3, HORIZON)
        for first in range(0, HORIZON, chunk_length):
            parts = task(given._replace(targets=targets))  # each chunk is predicted from the values before it
            block = slice(first, first + chunk_length)
            targets[:, block] = task.likelihood.draw(parts[:, block], *noise[:, :, path, block])
        torch.testing.assert_close(rolled[:, path], targets, rtol=1e-4, atol=1e-4)


@pytest.mark.numeric
def test_paths_belong_to_the_sample_and_not_to_its_batch() -> None:
    task, given = forecaster(likelihood=Gaussian(), chunk_length=2, num_samples=5), batch()
    whole = task.sample_paths(given)
    for row in range(3):
        alone = type(given)(*(part[row : row + 1] if isinstance(part, torch.Tensor) else part for part in given))
        torch.testing.assert_close(task.sample_paths(alone), whole[row : row + 1])


def test_a_prediction_does_not_depend_on_later_values() -> None:
    task, given = forecaster(chunk_length=2), batch()
    targets = given.targets.clone().requires_grad_()
    predicted = task(given._replace(targets=targets))[..., 0]
    for step in range(HORIZON):
        (gradient,) = torch.autograd.grad(predicted[:, step].sum(), targets, retain_graph=True)
        read = 2 * (step // 2)  # steps of the preceding chunks
        assert not gradient[:, read:].any()
        assert not read or gradient[:, :read].abs().min() > 0


@pytest.mark.numeric
@pytest.mark.parametrize("likelihood", [None, Quantiles([0.1, 0.5, 0.9]), StudentT()])
@pytest.mark.parametrize("kind", ["lstm", "dlinear", "patches"])
def test_with_instance_norm_forecasts_follow_the_units_of_the_window(kind: str, likelihood: object) -> None:
    forecast = ForecastSettings(likelihood=likelihood, instance_norm=True, num_samples=4)  # type: ignore[arg-type]
    torch.manual_seed(1)
    kinds: dict[str, Forecasting] = {
        "lstm": Forecaster(LSTM(width=8, depth=1), HORIZON, 2, forecast),
        "dlinear": DLinearForecaster(CONTEXT, HORIZON, 2, kernel=5, forecast=forecast),
        "patches": PatchTransformerForecaster(CONTEXT, HORIZON, 2, forecast, width=8, heads=2, patch=4, stride=2),
    }
    task, given = kinds[kind].eval(), batch()
    with torch.no_grad():
        assert task.instance is not None
        task.instance.bias.fill_(0.3)
        task.instance.log_gain.fill_(-0.2)
        plain = task.sample_paths(given)
        moved = task.sample_paths(given._replace(context=1000 * given.context + 50, targets=1000 * given.targets + 50))
    torch.testing.assert_close(moved, 1000 * plain + 50, rtol=1e-3, atol=0.5)


def test_a_covariate_that_is_known_ahead_reaches_its_own_step_alone() -> None:
    for task in (forecaster(), DLinearForecaster(CONTEXT, HORIZON, 2, kernel=5).eval()):
        given = batch()
        known = given.known.clone().requires_grad_()
        predicted = task(given._replace(known=known))[..., 0]
        (gradient,) = torch.autograd.grad(predicted[:, 3].sum(), known)
        reached = gradient[:, CONTEXT:].abs().sum((0, 2)) > 0
        assert reached.tolist() == [step == 3 for step in range(HORIZON)]


@pytest.mark.numeric
def test_dlinear_is_the_sum_of_two_linear_maps_of_trend_and_remainder() -> None:
    torch.manual_seed(1)
    network, window = DLinear(CONTEXT, 5), torch.randn(2, CONTEXT)
    extended = torch.cat([window[:, :1], window[:, :1], window, window[:, -1:], window[:, -1:]], 1)
    trend = torch.stack([extended[:, at : at + 5].mean(1) for at in range(CONTEXT)], 1)
    torch.testing.assert_close(network(window), torch.cat([window - trend, trend], 1))


def test_an_unobserved_step_has_no_loss() -> None:
    task, given = forecaster(), batch()
    hidden = given.observed.clone()
    hidden[:, 2] = False
    wild = given.targets.clone()
    wild[:, 2] = 1e6
    assert task._loss(task(given), given._replace(targets=wild, observed=hidden)) < 1e4


def test_reading_in_units_of_the_window_needs_no_other_head() -> None:
    plain, own = forecaster(), forecaster(instance_norm=True)
    extra = set(own.state_dict()) - set(plain.state_dict())
    assert extra == {"instance.log_gain", "instance.bias"}
    assert copy.deepcopy(own)(batch()).shape == (3, HORIZON, 1)


def test_invalid_arguments_raise_an_error() -> None:
    with pytest.raises(ValueError, match="chunk_length=4 must divide horizon=6"):
        forecaster(chunk_length=4)
    with pytest.raises(ValueError, match="predicts the whole horizon=6"):
        WindowForecaster(DLinear(CONTEXT, 5), HORIZON, 0, ForecastSettings(chunk_length=2))
    with pytest.raises(ValueError, match="kernel=4 must be odd"):
        DLinear(CONTEXT, 4)
