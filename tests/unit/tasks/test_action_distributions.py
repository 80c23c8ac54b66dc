"""Action distributions: log-likelihoods and samples."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

from pipeline.tasks.action_distributions import Choices, Numbers, actions_of

CHOICES, NUMBERS = Choices(4), Numbers([-2.0, 0.0], [2.0, 10.0])


@pytest.mark.numeric
def test_the_loss_of_a_choice_is_its_negative_log_likelihood() -> None:
    torch.manual_seed(1)
    parameters, actions = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    torch.testing.assert_close(CHOICES.nats(parameters, actions), -Categorical(logits=parameters).log_prob(actions))


@pytest.mark.numeric
def test_choices_are_drawn_with_their_probabilities() -> None:
    parameters = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(20_000, 4)
    uniform = 1 - torch.from_numpy(np.random.default_rng(1).random((20_000, 2, 1), np.float32))
    shares = torch.bincount(CHOICES.draw(parameters, uniform), minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.015, rtol=0.0)
    assert CHOICES.best(parameters)[0] == 3


def test_extreme_uniform_numbers_give_valid_choices() -> None:
    parameters = torch.zeros(2, 4)
    assert CHOICES.draw(parameters, torch.tensor([[[1.0], [0.5]], [[1e-9], [0.5]]])).tolist() == [3, 0]


@pytest.mark.numeric
def test_the_loss_of_numbers_is_their_negative_log_likelihood_over_the_scaled_range() -> None:
    torch.manual_seed(1)
    parameters, actions = torch.randn(3, 5, 4), torch.stack([torch.rand(3, 5) * 4 - 2, torch.rand(3, 5) * 10], -1)
    mean, deviation = parameters[..., 0::2], F.softplus(parameters[..., 1::2]) + 1e-4
    scaled = torch.stack([actions[..., 0] / 2, (actions[..., 1] - 5) / 5], -1)
    expected = -Normal(mean, deviation).log_prob(scaled).sum(-1)
    torch.testing.assert_close(NUMBERS.nats(parameters, actions), expected)


def test_numbers_are_drawn_around_the_mean_and_within_the_range() -> None:
    parameters = torch.tensor([0.5, -3.0, 0.0, 5.0]).expand(5_000, 4)
    uniform = 1 - torch.from_numpy(np.random.default_rng(1).random((5_000, 2, 2), np.float32))
    drawn = NUMBERS.draw(parameters, uniform)
    assert abs(float(drawn[:, 0].mean()) - 1.0) < 0.01  # half of the way from the middle to the end
    assert abs(float(drawn[:, 0].std()) - 2 * 0.0487) < 0.01  # softplus(-3), in units of half the range
    assert (drawn[:, 1].min(), drawn[:, 1].max()) == (0, 10)
    assert NUMBERS.best(parameters)[0].tolist() == [1.0, 5.0]


def test_no_action_reads_as_zeros() -> None:
    assert CHOICES.read(torch.tensor([int(CHOICES.initial), 2])).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert CHOICES.read(torch.tensor([0, 3])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert NUMBERS.initial.dtype == np.float32
    initial = torch.from_numpy(NUMBERS.initial)
    assert NUMBERS.read(torch.stack([initial, torch.tensor([2.0, 0.0])])).tolist() == [[0, 0], [1, -1]]


def test_a_dataset_describes_choices_or_numbers() -> None:
    assert isinstance(actions_of({"choices": 2, "low": [], "high": []}), Choices)
    made = actions_of({"choices": 0, "low": [-1.0], "high": [1.0]})
    assert (made.features, made.parameters, made.draws) == (1, 2, 1)


def test_rounding_never_draws_a_choice_beyond_the_last() -> None:
    parameters = torch.tensor([[0.0, 0.0, 0.0, -200.0]])
    assert CHOICES.draw(parameters, torch.tensor([[[1.1], [0.5]]])).tolist() == [3]
    assert CHOICES.draw(torch.zeros(1, 4), torch.tensor([[[0.25], [0.5]]])).tolist() == [0]


@pytest.mark.numeric
def test_one_number_is_drawn_from_two_uniform_numbers() -> None:
    one = actions_of({"choices": 0, "low": [-1.0], "high": [1.0]})
    uniform = torch.tensor([[[0.5], [0.25]], [[0.5], [0.5]]])
    expected = [0.0, -1.1774 * 0.0487]  # Box and Muller: sqrt(-2 ln 0.5) cos(2 pi u), by softplus(-3)
    drawn = one.draw(torch.tensor([[0.0, -3.0]]).expand(2, 2), uniform)
    torch.testing.assert_close(drawn, torch.tensor(expected)[:, None], atol=1e-3, rtol=0.0)
