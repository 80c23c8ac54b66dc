"""Likelihoods, quantiles and samples, compared with torch's distributions."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import StudentT as TorchStudentT

from pipeline.tasks.likelihoods import AbsoluteError, Gaussian, Likelihood, Quantiles, SquaredError, StudentT

LIKELIHOODS = [SquaredError(), AbsoluteError(), Quantiles(), Gaussian(), StudentT()]
every_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda likelihood: type(likelihood).__name__)


def random_parameters(likelihood: Likelihood, steps: int = 6) -> torch.Tensor:
    torch.manual_seed(1)
    return likelihood.parts(torch.randn(steps, likelihood.parameters, dtype=torch.float64))


def uniform(count: int, steps: int = 6) -> torch.Tensor:
    return 1 - torch.rand(2, count, steps, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.numeric
def test_likelihoods_are_those_of_torch() -> None:
    values = torch.linspace(-3, 3, 6, dtype=torch.float64)
    mean, deviation = random_parameters(Gaussian()).unbind(-1)
    torch.testing.assert_close(
        Gaussian().loss(random_parameters(Gaussian()), values), -Normal(mean, deviation).log_prob(values)
    )
    location, scale, freedom = random_parameters(StudentT()).unbind(-1)
    expected = -TorchStudentT(freedom, location, scale).log_prob(values)
    torch.testing.assert_close(StudentT().loss(random_parameters(StudentT()), values), expected)


@pytest.mark.numeric
def test_the_pinball_loss_of_a_quantile_is_that_of_its_definition() -> None:
    likelihood = Quantiles([0.2, 0.9])
    parts = torch.tensor([[1.0, 2.0]])
    below = likelihood.loss(parts, torch.tensor([0.0]))
    between = likelihood.loss(parts, torch.tensor([1.5]))
    assert below.item() == pytest.approx(2 * (0.8 * 1 + 0.1 * 2) / 2)
    assert between.item() == pytest.approx(2 * (0.2 * 0.5 + 0.1 * 0.5) / 2)


def test_quantiles_never_cross() -> None:
    assert (torch.diff(random_parameters(Quantiles(), 500), dim=-1) >= 0).all()


@pytest.mark.numeric
@every_likelihood
def test_the_loss_of_moved_parameters_is_that_of_values_moved_back(likelihood: Likelihood) -> None:
    parts, values = random_parameters(likelihood), torch.linspace(-2, 2, 6, dtype=torch.float64)
    shift, scale = torch.tensor(0.7, dtype=torch.float64), torch.tensor(3.0, dtype=torch.float64)
    moved = likelihood.loss(likelihood.move(parts, shift, scale), shift + scale * values)
    plain = likelihood.loss(parts, values)
    factor = {SquaredError: 9.0, AbsoluteError: 3.0, Quantiles: 3.0}.get(type(likelihood), 1.0)
    added = math.log(3.0) if isinstance(likelihood, Gaussian | StudentT) else 0.0  # of a density
    torch.testing.assert_close(moved, factor * plain + added)


@pytest.mark.numeric
@pytest.mark.parametrize("likelihood", [Gaussian(), StudentT()], ids=["Gaussian", "StudentT"])
def test_draws_have_the_distribution_of_their_parameters(likelihood: Likelihood) -> None:
    parts, count = random_parameters(likelihood), 40_000
    drawn = likelihood.draw(parts.expand(count, -1, -1), *uniform(count)).sort(0).values
    deviation = Normal(*parts.unbind(-1)) if isinstance(likelihood, Gaussian) else None
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
    likelihood = Quantiles([0.1, 0.3, 0.5, 0.9])
    parts, count = random_parameters(likelihood), 100_000
    drawn = likelihood.draw(parts.expand(count, -1, -1), *uniform(count))
    found = torch.quantile(drawn, torch.tensor(likelihood.levels, dtype=torch.float64), dim=0).T
    assert (found - parts).abs().max() < 0.02


@pytest.mark.parametrize("levels", [[], [0.5, 0.1], [0.0, 0.5], [0.5, 1.0]])
def test_invalid_levels_raise_an_error(levels: list[float]) -> None:
    with pytest.raises(ValueError, match=r"expected increasing numbers in \(0, 1\)"):
        Quantiles(levels)


@pytest.mark.numeric
def test_raw_numbers_become_parameters_in_their_ranges() -> None:
    raw = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    soft = [math.log1p(math.exp(value)) for value in raw.tolist()]
    assert Gaussian().parts(raw[:2]).tolist() == pytest.approx([1.0, soft[1] + 1e-4])
    assert StudentT().parts(raw).tolist() == pytest.approx([1.0, soft[1] + 1e-4, 2.01 + soft[2]])
    assert SquaredError().parts(raw[:1]).tolist() == AbsoluteError().parts(raw[:1]).tolist() == [1.0]
    levels = Quantiles([0.1, 0.2, 0.5, 0.8, 0.9]).parts(torch.tensor([1.0, -2.0, 0.5, -1.0, 3.0], dtype=torch.float64))
    soft = [math.log1p(math.exp(value)) for value in (1.0, -2.0, -1.0, 3.0)]
    assert levels.tolist() == pytest.approx(
        [0.5 - soft[1] - soft[0], 0.5 - soft[1], 0.5, 0.5 + soft[2], 0.5 + soft[2] + soft[3]]
    )


def test_a_number_is_drawn_as_itself_and_distributions_differ() -> None:
    assert [likelihood.draws for likelihood in LIKELIHOODS] == [False, False, True, True, True]
    assert [likelihood.parameters for likelihood in LIKELIHOODS] == [1, 1, 9, 2, 3]
    parts = torch.tensor([[2.5], [-1.0]])
    assert SquaredError().draw(parts, torch.rand(2), torch.rand(2)).tolist() == [2.5, -1.0]
    assert AbsoluteError().loss(parts, torch.tensor([1.0, 1.0])).tolist() == [1.5, 2.0]
    assert SquaredError().loss(parts, torch.tensor([1.0, 1.0])).tolist() == [2.25, 4.0]


@pytest.mark.numeric
def test_draws_outside_the_quantiles_are_the_outermost_ones() -> None:
    likelihood, parts = Quantiles([0.2, 0.4, 0.8]), torch.tensor([1.0, 2.0, 6.0])
    one = torch.tensor([0.01, 0.2, 0.3, 0.4, 0.5, 0.8, 0.99])
    drawn = likelihood.draw(parts.expand(7, 3), one, one)
    assert drawn.tolist() == pytest.approx([1.0, 1.0, 1.5, 2.0, 3.0, 6.0, 6.0])
    assert Quantiles([0.3]).draw(torch.tensor([[7.0]]), torch.tensor([0.9]), torch.tensor([0.9])).tolist() == [7.0]


@pytest.mark.numeric
def test_draws_by_the_formulas_of_box_and_muller_and_of_bailey() -> None:
    one, two = torch.tensor([0.3, 0.9], dtype=torch.float64), torch.tensor([0.1, 0.6], dtype=torch.float64)
    normal = Gaussian().draw(torch.tensor([[1.0, 2.0]] * 2, dtype=torch.float64), one, two)
    student = StudentT().draw(torch.tensor([[1.0, 2.0, 5.0]] * 2, dtype=torch.float64), one, two)
    for place, (u, v) in enumerate(zip(one.tolist(), two.tolist(), strict=True)):
        turn = math.cos(2 * math.pi * v)
        assert normal[place].item() == pytest.approx(1 + 2 * math.sqrt(-2 * math.log(u)) * turn)
        assert student[place].item() == pytest.approx(1 + 2 * math.sqrt(5 * (u ** (-2 / 5) - 1)) * turn)


@pytest.mark.parametrize("levels", [[0.5], [0.1, 0.2], [1e-9, 1 - 1e-9]])
def test_increasing_levels_are_accepted(levels: list[float]) -> None:
    assert Quantiles(levels).parameters == len(levels)
    with pytest.raises(ValueError, match=r"expected increasing numbers in \(0, 1\)"):
        Quantiles([0.5, 0.5])
