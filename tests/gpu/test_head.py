"""On a CUDA device, losses in blocks equal those from all logits at once, in a fraction of the memory."""

from functools import partial

import pytest
import torch
from torch import Tensor

from pipeline.tasks import token_output
from pipeline.tasks.token_output import TokenOutput, token_losses

pytestmark = pytest.mark.gpu
TOKENS, WIDTH, VOCABULARY = 4096, 768, 32_000


def results(dtype: torch.dtype) -> tuple[list[Tensor], int]:
    """Return losses and gradients of the head, and the bytes of its peak above weights and inputs."""
    torch.manual_seed(0)
    layer = TokenOutput(WIDTH, VOCABULARY, device="cuda")
    outputs = torch.randn(4, TOKENS // 4, WIDTH, device="cuda", requires_grad=True)
    targets = torch.randint(VOCABULARY, (4, TOKENS // 4), device="cuda")
    for measured in (False, True):  # cuBLAS allocates its workspace in the first pass
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            nats, smoothed = layer(outputs, read=partial(token_losses, targets=targets, smoothing=0.1))
        found = [nats.detach(), smoothed.detach()]
        # Of the sum: gradients of the mean are below the smallest float16, which training scales up.
        found += torch.autograd.grad(smoothed, [outputs, *layer.parameters()])
        if not measured:
            del nats, smoothed, found
    return found, torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-3), (torch.bfloat16, 0.02), (torch.float16, 0.02)])
def test_blocks_find_the_same_in_a_fifth_of_the_memory(
    dtype: torch.dtype, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, peak = results(dtype)
    monkeypatch.setattr(token_output, "LIMIT", 1 << 40)
    expected, whole = results(dtype)
    assert whole > 5 * peak
    for mine, other in zip(found, expected, strict=True):
        assert float((mine - other).norm()) <= error * float(other.norm())
