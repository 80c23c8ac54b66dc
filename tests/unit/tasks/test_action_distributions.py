"""Actions: what they cost is their likelihood, and draws follow it."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

from pipeline.tasks.action_distributions import Choices, Numbers, actions_of

CHOICES, NUMBERS = Choices(4), Numbers([-2.0, 0.0], [2.0, 10.0])


@pytest.mark.numeric
def test_what_a_choice_costs_is_its_likelihood() -> None:
    torch.manual_seed(1)
    said, done = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    torch.testing.assert_close(CHOICES.nats(said, done), -Categorical(logits=said).log_prob(done))


@pytest.mark.numeric
def test_choices_are_drawn_as_often_as_is_said() -> None:
    said = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(20_000, 4)
    chance = 1 - torch.from_numpy(np.random.default_rng(1).random((20_000, 2, 1), np.float32))
    shares = torch.bincount(CHOICES.draw(said, chance), minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.015, rtol=0.0)
    assert CHOICES.best(said)[0] == 3


def test_the_ends_of_chance_are_choices_too() -> None:
    said = torch.zeros(2, 4)
    assert CHOICES.draw(said, torch.tensor([[[1.0], [0.5]], [[1e-9], [0.5]]])).tolist() == [3, 0]


@pytest.mark.numeric
def test_what_numbers_cost_is_their_likelihood_over_the_scaled_range() -> None:
    torch.manual_seed(1)
    said, done = torch.randn(3, 5, 4), torch.stack([torch.rand(3, 5) * 4 - 2, torch.rand(3, 5) * 10], -1)
    mean, deviation = said[..., 0::2], F.softplus(said[..., 1::2]) + 1e-4
    scaled = torch.stack([done[..., 0] / 2, (done[..., 1] - 5) / 5], -1)
    expected = -Normal(mean, deviation).log_prob(scaled).sum(-1)
    torch.testing.assert_close(NUMBERS.nats(said, done), expected)


def test_numbers_are_drawn_around_the_mean_and_within_the_range() -> None:
    said = torch.tensor([0.5, -3.0, 0.0, 5.0]).expand(5_000, 4)
    chance = 1 - torch.from_numpy(np.random.default_rng(1).random((5_000, 2, 2), np.float32))
    drawn = NUMBERS.draw(said, chance)
    assert abs(float(drawn[:, 0].mean()) - 1.0) < 0.01  # half of the way from the middle to the end
    assert abs(float(drawn[:, 0].std()) - 2 * 0.0487) < 0.01  # softplus(-3), in units of half the range
    assert (drawn[:, 1].min(), drawn[:, 1].max()) == (0, 10)
    assert NUMBERS.best(said)[0].tolist() == [1.0, 5.0]


def test_no_action_reads_as_zeros() -> None:
    assert CHOICES.read(torch.tensor([int(CHOICES.nothing), 2])).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert CHOICES.read(torch.tensor([0, 3])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert NUMBERS.nothing.dtype == np.float32
    nothing = torch.from_numpy(NUMBERS.nothing)
    assert NUMBERS.read(torch.stack([nothing, torch.tensor([2.0, 0.0])])).tolist() == [[0, 0], [1, -1]]


def test_a_dataset_describes_choices_or_numbers() -> None:
    assert isinstance(actions_of({"choices": 2, "low": [], "high": []}), Choices)
    made = actions_of({"choices": 0, "low": [-1.0], "high": [1.0]})
    assert (made.features, made.parameters, made.draws) == (1, 2, 1)


def test_rounding_never_draws_a_choice_beyond_the_last() -> None:
    said = torch.tensor([[0.0, 0.0, 0.0, -200.0]])
    assert CHOICES.draw(said, torch.tensor([[[1.1], [0.5]]])).tolist() == [3]
    assert CHOICES.draw(torch.zeros(1, 4), torch.tensor([[[0.25], [0.5]]])).tolist() == [0]
