"""Every network that reads a window at once declares its features, keeps windows independent, and learns."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.layers.attention import SelfAttention
from tests.unit.models.networks import assert_equal_to_rounding, exported_networks, save_and_load

WINDOW = 24
every_window_network = pytest.mark.parametrize("make", exported_networks(causal=False), ids=lambda make: make.__name__)


def random_windows() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(5, WINDOW, dtype=torch.float64)


@every_window_network
def test_a_window_gives_the_declared_features(make):
    torch.manual_seed(1)
    network = make(context=WINDOW).double().eval()
    assert network(random_windows()).shape == (5, network.features)


@pytest.mark.numeric
@every_window_network
def test_windows_are_independent_even_in_training(make):
    torch.manual_seed(1)
    network, windows = make(context=WINDOW).double().train(), random_windows()
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    for layer in (part for part in network.modules() if isinstance(part, SelfAttention)):
        layer.dropout = 0.0
    together = network(windows)
    for row in range(5):
        assert_equal_to_rounding(network(windows[row : row + 1])[0], together[row])


@every_window_network
def test_every_step_of_a_window_and_every_parameter_counts(make):
    torch.manual_seed(1)
    network, windows = make(context=WINDOW).double().eval(), random_windows().requires_grad_()
    network(windows).pow(3).sum().backward()
    assert windows.grad is not None
    assert windows.grad.abs().min() > 0
    assert [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()] == []


@pytest.mark.learns
@every_window_network
def test_it_overfits_the_horizons_of_one_batch(make, seed, record_property):
    torch.manual_seed(seed)
    network, windows = make(context=WINDOW).eval(), random_windows().float()  # without dropout
    head, targets = nn.Linear(network.features, 6), torch.randn(5, 6)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-2)
    steps, loss = 0, torch.tensor(torch.inf)
    while loss > 0.01 and steps < 500:  # a constant costs 1; ten seeds: at most 39 ± 2.1 steps
        steps += 1
        optimizer.zero_grad()
        loss = (head(network(windows)) - targets).square().mean()
        loss.backward()
        optimizer.step()
    record_property("steps", steps)
    assert loss <= 0.01


@pytest.mark.numeric
@every_window_network
def test_saved_and_loaded_weights_are_the_same_window_network(make):
    network, other = (make(context=WINDOW).double().eval() for _ in range(2))
    other.load_state_dict(save_and_load(network.state_dict()))
    assert torch.equal(other(random_windows()), network(random_windows()))
