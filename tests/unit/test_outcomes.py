"""What forecasts say: likelihoods, quantiles and draws beside torch's own distributions."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import StudentT as TorchStudentT

from pipeline.outcomes import AbsoluteError, Gaussian, Outcome, Quantiles, SquaredError, StudentT

OUTCOMES = [SquaredError(), AbsoluteError(), Quantiles(), Gaussian(), StudentT()]
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)


def said(outcome: Outcome, steps: int = 6) -> torch.Tensor:
    torch.manual_seed(1)
    return outcome.parts(torch.randn(steps, outcome.parameters, dtype=torch.float64))


def uniform(count: int, steps: int = 6) -> torch.Tensor:
    return 1 - torch.rand(2, count, steps, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.numeric
def test_likelihoods_are_those_of_torch() -> None:
    values = torch.linspace(-3, 3, 6, dtype=torch.float64)
    mean, deviation = said(Gaussian()).unbind(-1)
    torch.testing.assert_close(Gaussian().loss(said(Gaussian()), values), -Normal(mean, deviation).log_prob(values))
    location, scale, freedom = said(StudentT()).unbind(-1)
    expected = -TorchStudentT(freedom, location, scale).log_prob(values)
    torch.testing.assert_close(StudentT().loss(said(StudentT()), values), expected)


@pytest.mark.numeric
def test_the_pinball_loss_of_a_quantile_is_that_of_its_definition() -> None:
    outcome = Quantiles([0.2, 0.9])
    parts = torch.tensor([[1.0, 2.0]])
    below = outcome.loss(parts, torch.tensor([0.0]))
    between = outcome.loss(parts, torch.tensor([1.5]))
    assert below.item() == pytest.approx(2 * (0.8 * 1 + 0.1 * 2) / 2)
    assert between.item() == pytest.approx(2 * (0.2 * 0.5 + 0.1 * 0.5) / 2)


def test_quantiles_never_cross() -> None:
    assert (torch.diff(said(Quantiles(), 500), dim=-1) >= 0).all()


@pytest.mark.numeric
@every_outcome
def test_a_moved_outcome_costs_what_the_values_moved_back_cost(outcome: Outcome) -> None:
    parts, values = said(outcome), torch.linspace(-2, 2, 6, dtype=torch.float64)
    shift, scale = torch.tensor(0.7, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    moved = outcome.loss(outcome.move(parts, shift, scale), shift + scale * values)
    plain = outcome.loss(parts, values)
    factor = {SquaredError: 9.0, AbsoluteError: 3.0, Quantiles: 3.0}.get(type(outcome), 1.0)
    added = math.log(3.0) if isinstance(outcome, Gaussian | StudentT) else 0.0  # of a density
    torch.testing.assert_close(moved, factor * plain + added)


@pytest.mark.numeric
@pytest.mark.parametrize("outcome", [Gaussian(), StudentT()], ids=["Gaussian", "StudentT"])
def test_draws_have_the_distribution_that_was_said(outcome: Outcome) -> None:
    parts, count = said(outcome), 40_000
    drawn = outcome.draw(parts.expand(count, -1, -1), *uniform(count)).sort(0).values
    deviation = Normal(*parts.unbind(-1)) if isinstance(outcome, Gaussian) else None
    shares = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) / count
    if deviation is not None:
        distance = (deviation.cdf(drawn) - shares).abs().max()
        assert distance < 1.95 / math.sqrt(count)  # Kolmogorov and Smirnov, 1 in 1,000
    else:
        location, scale, freedom = parts.unbind(-1)
        variance = ((drawn - location) / scale).clamp(-8, 8).var(0)
        expected = TorchStudentT(freedom).sample((200_000,)).clamp(-8, 8).var(0)
        torch.testing.assert_close(variance, expected, rtol=0.06, atol=0.0)


def test_draws_of_quantiles_have_these_quantiles() -> None:
    outcome = Quantiles([0.1, 0.3, 0.5, 0.9])
    parts, count = said(outcome), 100_000
    drawn = outcome.draw(parts.expand(count, -1, -1), *uniform(count))
    found = torch.quantile(drawn, torch.tensor(outcome.levels, dtype=torch.float64), dim=0).T
    assert (found - parts).abs().max() < 0.02


@pytest.mark.parametrize("levels", [[], [0.5, 0.1], [0.0, 0.5], [0.5, 1.0]])
def test_levels_that_are_none_are_refused(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="must rise within"):
        Quantiles(levels)
