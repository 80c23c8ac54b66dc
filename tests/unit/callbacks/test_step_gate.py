"""A step that is skipped on the device leaves weights and optimizer state bitwise as they were."""

import copy
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Muon, NAdam, Optimizer, RMSprop

from pipeline.callbacks import step_gate
from pipeline.callbacks.step_gate import Gate, is_on_device, kept
from pipeline.optim import muon

NO, YES = torch.tensor(False), torch.tensor(True)
OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "AdamW, fused": partial(AdamW, lr=0.1, fused=True),
    "Adam, fused, with maxima": partial(Adam, lr=0.1, fused=True, amsgrad=True),
    "AdamW": partial(AdamW, lr=0.1),
    "AdamW, one by one": partial(AdamW, lr=0.1, foreach=False),
    "SGD": partial(SGD, lr=0.1, weight_decay=0.1),
    "SGD with momentum": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "SGD, fused": partial(SGD, lr=0.1, momentum=0.9, fused=True),
    "Muon": partial(Muon, lr=0.1),
    "Muon of matrices": lambda given: muon.Muon([{"params": given, "hidden": True}], lr=0.1),
    "AdamW of Muon": partial(muon.Muon, lr=0.1),
    "NAdam": partial(NAdam, lr=0.1),
    "RMSprop": partial(RMSprop, lr=0.1, momentum=0.9),
    "Adagrad": partial(Adagrad, lr=0.1),
}


def train(make: Callable[[Iterable[Tensor]], Optimizer], skips: str) -> tuple[Tensor, Any]:
    """Take a step per letter of `skips`; the gate skips `x` but not `.`, and `-` stands for a step that is left out."""
    parameter = nn.Parameter(torch.arange(6.0).view(2, 3))
    optimizer = make([parameter])
    for number, letter in enumerate(skips):
        parameter.grad = torch.full((2, 3), math.nan if letter == "x" else float(number + 1))
        parameter.grad[0, 0] -= 0.5
        if letter == "-":
            continue
        assert is_on_device(optimizer, scaled=False)
        gate = Gate(optimizer, YES if letter == "x" else NO, scaled=False)
        optimizer.step()
        gate.close()
    return parameter.detach(), optimizer.state_dict()["state"].get(0, {})


@pytest.mark.numeric
@pytest.mark.parametrize("free", [True, False], ids=["on the CPU", "on a device"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("skipped", ["x..", ".x.", "..x", ".xx.x"])
def test_a_skipped_step_might_as_well_not_have_been(
    name: str, skipped: str, free: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (step_gate, muon):
        monkeypatch.setattr(module, "is_free", lambda skip: free)
    weights, state = train(OPTIMIZERS[name], skipped)
    expected, expected_state = train(OPTIMIZERS[name], skipped.replace("x", "-"))
    assert torch.equal(weights, expected)
    assert not torch.equal(weights, torch.arange(6.0).view(2, 3))
    assert state.keys() == expected_state.keys()
    for key, value in state.items():
        assert value is expected_state[key] is None or torch.equal(value, expected_state[key]), key


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["AdamW, fused", "SGD", "Muon", "Muon of matrices"])
def test_the_attribute_of_a_fused_kernel_does_not_stay(name: str) -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    optimizer = OPTIMIZERS[name]([parameter])
    gate = Gate(optimizer, YES, scaled=False)
    optimizer.step()
    gate.close()
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    assert not torch.equal(parameter.detach(), torch.ones(2, 2))


def test_state_on_the_host_cannot_be_gated() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = LBFGS([parameter])
    assert is_on_device(optimizer, scaled=False)
    optimizer.state[parameter]["n_iter"] = 3
    assert not is_on_device(optimizer, scaled=False)
    optimizer.state[parameter] = {"step": torch.zeros((), device="meta"), "momentum_buffer": None}
    assert not is_on_device(optimizer, scaled=False)
    optimizer.state[parameter]["step"] = torch.zeros(())
    assert is_on_device(optimizer, scaled=False)
    assert not is_on_device(optimizer, scaled=True)
    assert is_on_device(AdamW([parameter], fused=True), scaled=True)
    assert is_on_device(muon.Muon([parameter]), scaled=False)
    assert not is_on_device(muon.Muon([parameter]), scaled=True)  # the scaler of float16 reads the gradients itself


def test_a_decision_on_the_cpu_hides_the_gradients_and_copies_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    gradient = parameter.grad = torch.ones(2)
    for skip, seen in ((YES, None), (NO, gradient)):
        gate = Gate(SGD([parameter]), skip, scaled=False)
        assert parameter.grad is seen
        assert gate.copies == []
        gate.close()
        assert parameter.grad is gradient


@pytest.mark.numeric
@pytest.mark.parametrize(("skip", "expected"), [(NO, [2.0, -3.0]), (YES, [math.inf, math.inf])])
def test_a_scaled_gradient_becomes_infinite_for_the_scaler(skip: Tensor, expected: list[float]) -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([2.0, -3.0])
    optimizer = AdamW([parameter], fused=True)
    Gate(optimizer, skip, scaled=True).close()
    assert parameter.grad.tolist() == expected
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.numeric
def test_a_state_is_kept_or_replaced() -> None:
    before = torch.tensor([1.0]), [torch.tensor([2, 3]), None]
    after = torch.tensor([4.0]), [torch.tensor([5, 6]), None]
    unchanged = copy.deepcopy(before)
    assert str(kept(NO, before, after)) == str(after)
    assert str(kept(YES, before, after)) == str(unchanged)
    assert str(kept(NO, None, after)) == str(after)
    assert str(kept(YES, None, after)) == str((torch.tensor([0.0]), [torch.tensor([0, 0]), None]))
    assert kept(YES, None, None) is None
