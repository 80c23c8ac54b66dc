"""The gated linear recurrence follows Griffin's equations."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.models.linear_recurrence import GatedRecurrence, LinearRecurrence


@pytest.mark.numeric
def test_the_recurrence_follows_the_equations():
    torch.manual_seed(0)
    layer = GatedRecurrence(hidden=4, kernel=3).double()
    inputs = torch.randn(2, 7, 4, dtype=torch.float64)
    outputs, (last, _) = layer(inputs, None)
    taps = layer.taps.T[:, None]  # (H, 1, kernel): a depthwise convolution
    mixed = F.conv1d(F.pad(inputs.transpose(1, 2), (2, 0)), taps, groups=4).transpose(1, 2)
    h = torch.zeros(2, 4, dtype=torch.float64)
    for position in range(7):
        r, i = torch.sigmoid(layer.gates(mixed[:, position])).chunk(2, -1)
        a = torch.exp(-8 * F.softplus(layer.forgetting) * r)
        h = a * h + torch.sqrt(1 - a**2) * (i * mixed[:, position])
        torch.testing.assert_close(outputs[:, position], h, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(last, h, rtol=1e-10, atol=1e-10)


def test_decays_start_between_nine_tenths_and_almost_one():
    layer = GatedRecurrence(hidden=1000, kernel=4)
    decays = torch.exp(-8 * F.softplus(layer.forgetting))
    assert 0.899 < decays.min() < 0.91
    assert 0.99 < decays.max() < 0.9991


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gradients_stay_finite_over_two_thousand_positions(scale):
    torch.manual_seed(0)
    network = LinearRecurrence(width=8, depth=2)
    with torch.no_grad():
        for layer in network.layers:
            layer.recurrence.gates.weight.mul_(scale)  # saturated gates, where the root is steep
    network(torch.randn(1, 2048, 8))[0].square().mean().backward()
    assert all(each.grad.isfinite().all() for each in network.parameters())


def test_invalid_arguments_raise_an_error():
    with pytest.raises(ValueError, match="depth=0"):
        LinearRecurrence(width=4, depth=0)
