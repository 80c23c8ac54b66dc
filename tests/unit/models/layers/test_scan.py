"""Every way to compute the scan equals stepping, in both directions, with its gradient."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.models.layers.scan import _has_kernel, by_chunks, by_halving, scan, scan_values
from pipeline.models.layers.short_convolution import short_convolution
from pipeline.models.linear_recurrence import gated_scan, through_autograd

ROOT = Path(__file__).parents[4]
LENGTHS = [1, 2, 3, 7, 12, 13, 14, 64, 127, 128, 200, 513]  # 13 and more, but not 14, have chunks without a remainder
METHODS = pytest.mark.parametrize("method", [by_chunks, by_halving], ids=lambda method: method.__name__)
tight = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


def stepping(decay: Tensor, update: Tensor, state: Tensor) -> Tensor:
    states = []
    for a, b in zip(decay.unbind(1), update.unbind(1), strict=True):
        state = a * state + b
        states.append(state)
    return torch.stack(states, 1)


def draw(rows: int, positions: int, features: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Decays with exact zeros and ones among them, updates and a first state."""
    torch.manual_seed(positions)
    decay = torch.rand(rows, positions, features, dtype=dtype)
    decay = decay.where(torch.rand_like(decay) > 0.1, 0.0).where(torch.rand_like(decay) > 0.2, 1.0)
    return [decay, torch.randn_like(decay), torch.randn(rows, features, dtype=dtype)]


@pytest.mark.numeric
@METHODS
@pytest.mark.parametrize("positions", LENGTHS)
def test_every_method_equals_stepping(method: Callable[..., Tensor], positions: int) -> None:
    inputs = draw(2, positions, 3)
    tight(method(*inputs), stepping(*inputs))


@pytest.mark.numeric
@pytest.mark.parametrize("positions", LENGTHS)
@pytest.mark.parametrize("rows", [1, 300], ids=["in chunks", "position by position"])
def test_chunks_from_the_last_position_equal_stepping(rows: int, positions: int) -> None:
    decay, update, initial = draw(rows, positions, 12)
    expected = stepping(decay.flip(1), update.flip(1), initial).flip(1)
    tight(scan_values(decay, update, initial, backwards=True), expected)


@METHODS
def test_inputs_of_any_layout_are_read(method: Callable[..., Tensor]) -> None:
    decay, update, initial = draw(2, 50, 6)
    features = [each[..., ::2] for each in (decay, update, initial)]
    tight(method(*features), stepping(*features))
    positions = [decay[:, 1:-1], update[:, 1:-1], initial[:1].expand(2, -1)]
    tight(method(*positions), stepping(*positions))


@METHODS
@pytest.mark.parametrize("rows", [1, 16])
def test_float32_is_as_exact_as_stepping_in_float32(method: Callable[..., Tensor], rows: int) -> None:
    inputs = draw(rows, 777, 160, torch.float32)
    expected = stepping(*(each.double() for each in inputs))
    allowed = 2 * (stepping(*inputs) - expected).abs().max()
    assert (method(*inputs) - expected).abs().max() < allowed


@pytest.mark.parametrize("decay", [0.0, 1e-30, 0.5, 0.999, 0.9999, 1.0])
def test_two_thousand_steps_in_float32_stay_exact_at_any_decay(decay):
    torch.manual_seed(0)
    update = torch.randn(2, 2048, 3)
    inputs = [torch.full_like(update, decay), update, torch.randn(2, 3)]
    expected = stepping(*(each.double() for each in inputs))
    error = (scan(*inputs).double() - expected).abs().max() / expected.abs().max()
    assert error < 5e-6  # the loop itself errs by up to 1.4e-6


@pytest.mark.numeric
@pytest.mark.parametrize("positions", [1, 2, 14, 40, 130])
def test_the_gradient_is_that_of_stepping(positions: int) -> None:
    inputs = [each.requires_grad_() for each in draw(2, positions, 3)]
    weights = torch.randn(2, positions, 3, dtype=torch.float64)
    expected = torch.autograd.grad((stepping(*inputs) * weights).sum(), inputs)
    tight(torch.autograd.grad((scan(*inputs) * weights).sum(), inputs), expected)


def test_the_gradient_of_chunks_is_right_to_the_second_order() -> None:
    inputs = [each.requires_grad_() for each in draw(1, 13, 1)]
    assert torch.autograd.gradcheck(scan, inputs)
    assert torch.autograd.gradgradcheck(scan, inputs)


def gated(positions: int, spread: float = 1.0) -> list[Tensor]:
    torch.manual_seed(positions)
    gates, values = torch.randn(2, positions, 6).mul(spread), torch.randn(2, positions, 3)
    drawn = (gates, values, torch.rand(3), torch.randn(2, 3))
    return [each.double().requires_grad_() for each in drawn]


@pytest.mark.parametrize("positions", [1, 13])
def test_the_gradient_of_gates_and_scan_is_right(positions: int) -> None:
    assert torch.autograd.gradcheck(gated_scan, gated(positions))


@pytest.mark.numeric
@pytest.mark.parametrize("spread", [1.0, 40.0], ids=["open", "saturated"])
def test_gates_and_scan_have_the_values_and_gradients_that_autograd_finds(spread: float) -> None:
    inputs = gated(50, spread)
    given, expected = gated_scan(*inputs), through_autograd(*inputs)
    tight(given, expected)
    weights = torch.randn_like(given)
    found, right = (torch.autograd.grad((each * weights).sum(), inputs) for each in (given, expected))
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("taps", [1, 4])
def test_the_short_convolution_equals_a_depthwise_one(taps: int) -> None:
    torch.manual_seed(0)
    extended = torch.randn(2, 6 + taps, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(taps, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv1d(extended.transpose(1, 2), weights.T[:, None], groups=3).transpose(1, 2)
    tight(short_convolution(extended, weights), expected)
    assert torch.autograd.gradcheck(short_convolution, (extended, weights))
    assert torch.autograd.gradgradcheck(short_convolution, (extended, weights))


KERNEL = """
import torch
from pipeline.models.layers.scan_kernel import by_kernel
from tests.unit.models.layers.test_scan import draw, stepping, tight
for shape in ((2, 1, 3), (3, 64, 32), (1, 129, 33)):
    inputs = draw(*shape)
    tight(by_kernel(*inputs), stepping(*inputs))
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_equals_stepping_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KERNEL], env=environment, check=True)


@pytest.mark.parametrize("fails", [True, False])
def test_a_kernel_that_does_not_run_here_is_not_used(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_kernel(decay: Tensor, update: Tensor, initial: Tensor) -> Tensor:
        if fails:
            raise RuntimeError("Failed to find C compiler")
        return stepping(decay, update, initial)

    monkeypatch.setattr("pipeline.models.layers.scan.find_spec", lambda _: object())
    monkeypatch.setattr("pipeline.models.layers.scan_kernel.by_kernel", by_kernel)
    _has_kernel.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [_has_kernel(torch.device("cpu")) for _ in range(2)] == [not fails] * 2
    assert len(caught) == fails
    _has_kernel.cache_clear()
