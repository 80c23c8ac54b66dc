"""On a CUDA device the scan by the kernel, and by halving without Triton, equals stepping, with its gradient."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.models.layers import scan
from tests.unit.models.layers.test_scan import draw, stepping, tight

pytestmark = [pytest.mark.gpu]


def _without_triton(_: str) -> None:
    return None


@pytest.mark.parametrize("triton", [True, False], ids=["kernel", "halving"])
@pytest.mark.parametrize("shape", [(2, 1, 3), (3, 64, 32), (2, 129, 33), (1, 2048, 70)])
def test_the_scan_equals_stepping(shape: tuple[int, int, int], triton: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    if not triton:
        monkeypatch.setattr(scan, "find_spec", _without_triton)
    inputs = [each.cuda().requires_grad_() for each in draw(*shape)]
    expected, found = stepping(*inputs), scan.scan(*inputs)
    tight(found, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((each * weights).sum(), inputs) for each in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_the_kernel_is_chosen() -> None:
    pytest.importorskip("triton")
    method: Callable[..., Tensor] = scan._method(torch.zeros(1, device="cuda"))
    assert method.__name__ == "by_kernel"
