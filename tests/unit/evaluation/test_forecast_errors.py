"""Errors of forecasts against their definitions, written as loops."""

import math
from itertools import permutations

import pytest
import torch

from pipeline.evaluation.forecast_errors import ForecastErrors, crps, mean_errors, summary


@pytest.mark.numeric
def test_crps_is_the_mean_over_pairs_of_paths() -> None:
    torch.manual_seed(1)
    paths, actual = torch.randn(2, 7, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    for b in range(2):
        for h in range(3):
            drawn = paths[b, :, h].tolist()
            apart = sum(abs(one - two) for one, two in permutations(drawn, 2)) / (7 * 6)
            miss = sum(abs(one - actual[b, h].item()) for one in drawn) / 7
            assert crps(paths, actual)[b, h].item() == pytest.approx(miss - apart / 2)


@pytest.mark.numeric
def test_crps_of_many_normal_paths_is_the_closed_form() -> None:
    torch.manual_seed(1)
    paths, actual = torch.randn(1, 400_000, 1, dtype=torch.float64), torch.tensor([[0.8]], dtype=torch.float64)
    density, below = math.exp(-0.32) / math.sqrt(2 * math.pi), (1 + math.erf(0.8 / math.sqrt(2))) / 2
    expected = 0.8 * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)  # Gneiting and Raftery 2007, section 4.2
    assert crps(paths, actual).item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.numeric
def test_one_path_has_the_errors_of_a_number_and_no_coverage() -> None:
    errors = ForecastErrors()
    forecast, actual = torch.tensor([[[1.0, 2.0, 5.0]]]), torch.tensor([[0.0, 4.0, 99.0]])
    errors.update(forecast, actual, torch.tensor([[True, True, False]]), torch.tensor([0.5], dtype=torch.float64))
    assert mean_errors(errors) == pytest.approx({"mse": (1 + 4) / 2, "mae": (1 + 2) / 2, "mase": (2 + 4) / 2})


def test_coverage_is_the_fraction_between_the_10th_and_the_90th_percentile() -> None:
    errors = ForecastErrors()
    paths = torch.linspace(0, 1, 101)[None, :, None].expand(1, -1, 4)
    actual = torch.tensor([[0.05, 0.2, 0.89, 0.95]])
    errors.update(paths, actual, torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, dtype=torch.float64))
    found = mean_errors(errors)
    assert found["coverage"] == 0.5
    assert "mase" not in found  # the series has no naive error to divide by


@pytest.mark.numeric
def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    torch.manual_seed(1)
    paths, actual = torch.randn(6, 9, 4), torch.randn(6, 4)
    observed, naive = torch.rand(6, 4) > 0.3, torch.rand(6, dtype=torch.float64)
    whole, parts = ForecastErrors(), ForecastErrors()
    whole.update(paths, actual, observed, naive)
    for rows in torch.arange(6).split(4):
        parts.update(paths[rows], actual[rows], observed[rows], naive[rows])
    assert mean_errors(parts) == pytest.approx(mean_errors(whole))


@pytest.mark.numeric
def test_errors_of_processes_add_up_to_the_whole() -> None:
    torch.manual_seed(1)
    paths, actual = torch.randn(6, 9, 4), torch.randn(6, 4)
    observed, naive = torch.rand(6, 4) > 0.3, torch.tensor([0.0, 0.5, 0.7, 0.0, 1.5, 2.0], dtype=torch.float64)
    whole, one, other = ForecastErrors(), ForecastErrors(), ForecastErrors()
    whole.update(paths, actual, observed, naive)
    one.update(paths[:2], actual[:2], observed[:2], naive[:2])
    other.update(paths[2:], actual[2:], observed[2:], naive[2:])
    one.merge_state(other)
    assert mean_errors(one) == pytest.approx(mean_errors(whole))
    assert one.full_state_update is False
    counts = (one.steps, one.scaled_steps, one.sampled)
    assert [count.dtype for count in (one.sums, *counts)] == [torch.float64, *[torch.int64] * 3]


@pytest.mark.numeric
def test_errors_of_several_paths_are_those_of_their_definitions() -> None:
    errors, paths = ForecastErrors(), torch.tensor([[[0.0], [1.0], [8.0]], [[2.0], [3.0], [4.0]]])
    observed = torch.ones(2, 1, dtype=torch.bool)
    errors.update(paths, torch.tensor([[2.0], [9.0]]), observed, torch.tensor([0.25, 0.0], dtype=torch.float64))
    found = mean_errors(errors)
    assert found["mse"] == pytest.approx(((3 - 2) ** 2 + (3 - 9) ** 2) / 2)
    assert found["mae"] == pytest.approx(((2 - 1) + (9 - 3)) / 2)
    assert found["mase"] == pytest.approx((2 - 1) / 0.25)  # the second series has no naive error
    assert found["coverage"] == 0.5
    first = (2 + 1 + 6) / 3 - (1 + 8 + 7) / 3 / 2
    second = (7 + 6 + 5) / 3 - (1 + 2 + 1) / 3 / 2
    assert found["crps"] == pytest.approx((first + second) / 2)


@pytest.mark.numeric
def test_two_paths_are_several() -> None:
    paths, actual = torch.tensor([[[0.0], [10.0]]]), torch.tensor([[4.0]])
    assert crps(paths, actual).item() == pytest.approx((4 + 6) / 2 - 10 / 2)
    assert [each.item() for each in summary(paths)] == pytest.approx([5.0, 1.0, 5.0, 9.0])
