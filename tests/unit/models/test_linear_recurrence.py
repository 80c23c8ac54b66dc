"""The scan equals the recurrence at any length, and the gated linear recurrence follows Griffin's equations."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.layers.scan import scan
from pipeline.models.linear_recurrence import GatedRecurrence, LinearRecurrence


def one_after_the_other(decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
    states = []
    for a, b in zip(decay.unbind(1), update.unbind(1), strict=True):
        initial = a * initial + b
        states.append(initial)
    return torch.stack(states, 1)


def draw(positions: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(positions)
    decay, update = torch.rand(2, positions, 3, dtype=dtype), torch.randn(2, positions, 3, dtype=dtype)
    return [each.requires_grad_() for each in (decay, update, torch.randn(2, 3, dtype=dtype))]


@pytest.mark.numeric
@pytest.mark.parametrize("positions", [1, 2, 3, 4, 5, 7, 8, 33, 100])
def test_the_scan_and_its_gradient_are_those_of_the_loop(positions):
    inputs = draw(positions)
    weights = torch.randn(2, positions, 3, dtype=torch.float64)
    expected, actual = one_after_the_other(*inputs), scan(*inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    expected_gradient = torch.autograd.grad((expected * weights).sum(), inputs)
    given = torch.autograd.grad((actual * weights).sum(), inputs)
    torch.testing.assert_close(given, expected_gradient, rtol=1e-10, atol=1e-10)


def test_the_gradient_of_the_scan_is_right_to_the_second_order():
    inputs = draw(5)
    assert torch.autograd.gradcheck(scan, inputs)
    assert torch.autograd.gradgradcheck(scan, inputs)


@pytest.mark.parametrize("decay", [0.0, 1e-30, 0.5, 0.999, 0.9999, 1.0])
def test_two_thousand_steps_in_float32_stay_exact_at_any_decay(decay):
    torch.manual_seed(0)
    update = torch.randn(2, 2048, 3)
    inputs = [torch.full_like(update, decay), update, torch.randn(2, 3)]
    expected = one_after_the_other(*(each.double() for each in inputs))
    error = (scan(*inputs).double() - expected).abs().max() / expected.abs().max()
    assert error < 5e-6  # the loop itself errs by up to 1.4e-6


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
