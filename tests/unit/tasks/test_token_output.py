"""Losses in blocks of positions have the values and gradients of torch's cross-entropy, in a fraction of its memory."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional

from pipeline.data.batch import IGNORE
from pipeline.optim import AdamW
from pipeline.tasks import token_output
from pipeline.tasks.token_output import TokenOutput, block_rows, most_probable, token_losses
from pipeline.tasks.token_prediction import TokenHead, TokenPrediction

WIDTH, VOCABULARY = 6, 11


@pytest.fixture
def _blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four positions; the last one of fifteen is shorter."""
    monkeypatch.setattr(token_output, "BLOCK", 4 * VOCABULARY)


def given(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[TokenOutput, Tensor, Tensor]:
    """Return a layer, outputs and targets of 15 positions; all targets of the third block are ignored."""
    torch.manual_seed(0)
    layer = TokenOutput(WIDTH, VOCABULARY, bias=bias, dtype=dtype)
    targets = torch.randint(VOCABULARY, (3, 5))
    targets[0, 2], targets.flatten()[8:12] = IGNORE, IGNORE
    return layer, torch.randn(3, 5, WIDTH, dtype=dtype, requires_grad=True), targets


def gradients(loss: Tensor, *tensors: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(3 * loss, tensors))


@pytest.mark.numeric
@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_blocks_have_the_losses_and_gradients_of_the_cross_entropy(smoothing: float, bias: bool) -> None:
    layer, outputs, targets = given(bias=bias)
    nats, smoothed = layer(outputs, read=partial(token_losses, targets=targets, smoothing=smoothing))
    criterion = partial(functional.cross_entropy, layer(outputs).flatten(0, 1), targets.flatten(), reduction="sum")
    expected = criterion(ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(nats, criterion(ignore_index=IGNORE).detach())
    torch.testing.assert_close(smoothed, expected)
    tensors = [outputs, *layer.parameters()]
    torch.testing.assert_close(gradients(smoothed, *tensors), gradients(expected, *tensors))
    assert not nats.requires_grad


@pytest.mark.numeric
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_training_step_with_a_tied_weight_does_not_depend_on_blocks(
    smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = TokenPrediction(WIDTH, VOCABULARY, TokenHead(label_smoothing=smoothing, ar_weight=0.5), AdamW, None)
    tokens = torch.randint(VOCABULARY, (3, 6))
    found: list[list[Tensor]] = []
    for block in (1 << 23, 2 * VOCABULARY):
        monkeypatch.setattr(token_output, "BLOCK", block)
        model.double().seen.reset()
        loss = model.training_loss(model.embedding(tokens[:, :-1]), tokens[:, 1:])
        found.append([loss.detach(), model.seen.nats.clone(), *gradients(loss, *model.parameters())])
    torch.testing.assert_close(found[1], found[0])
    assert len(found[0]) == 4  # the weight is shared


@pytest.mark.numeric
@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_in_float32_under_autocast_and_as_near_as_at_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, outputs, targets = given(torch.float32)
    tensors = [outputs, *layer.parameters()]

    def results() -> list[Tensor]:
        nats, smoothed = layer(outputs, read=partial(token_losses, targets=targets, smoothing=0.1))
        assert (nats.dtype, smoothed.dtype) == (torch.float32, torch.float32)
        return [nats.detach(), smoothed.detach(), *gradients(smoothed, *tensors)]

    exact = results()
    with torch.autocast("cpu", dtype):
        blocks = results()
        monkeypatch.setattr(token_output, "BLOCK", 1 << 23)
        at_once = results()
    for right, here, there in zip(exact, blocks, at_once, strict=True):
        assert here.dtype == there.dtype
        assert 0 < float((here - right).norm()) < 1.5 * float((there - right).norm()) + 1e-6 * float(right.norm())
        torch.testing.assert_close(here, there, rtol=0.05, atol=0.02)


@pytest.mark.usefixtures("_blocks")
def test_weights_in_bfloat16_have_gradients_in_bfloat16() -> None:
    layer, outputs, targets = given(torch.bfloat16)
    _, loss = token_losses(layer, outputs, targets)
    found = gradients(loss, outputs, *layer.parameters())
    assert [each.dtype for each in (loss, *found)] == [torch.float32, *[torch.bfloat16] * 3]


@pytest.mark.usefixtures("_blocks")
def test_a_second_backward_pass_through_blocks_raises_an_error() -> None:
    layer, outputs, targets = given()
    _, loss = token_losses(layer, outputs, targets)
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


@pytest.mark.numeric
@pytest.mark.usefixtures("_blocks")
def test_an_evaluation_in_blocks_finds_the_loss_and_the_most_probable_tokens() -> None:
    layer, outputs, targets = given()
    with torch.no_grad():
        nats, _ = token_losses(layer, outputs, targets)
    logits = layer(outputs)
    expected = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORE)
    torch.testing.assert_close(nats, expected.detach())
    assert nats.grad_fn is None
    assert torch.equal(layer(outputs, read=most_probable), logits.argmax(-1))


def test_the_size_of_a_block_depends_on_the_device_and_the_number_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert block_rows(700, 10_000, "cpu") == 700
    assert block_rows(4096, 32_000, "cpu") == 262
    assert block_rows(2, 1 << 23, "cpu") == 1
    assert block_rows(16_384, 2048, "cuda") == 16_384
    assert block_rows(4096, 32_000, "cuda") == 512
    assert block_rows(32_767, 50_304, "cuda") == 4096
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert block_rows(4096, 32_000, "cpu") == block_rows(4096, 32_000, "cuda") == 4096


def peak(training: bool) -> int:
    """Return the bytes that output layer and loss take beside their inputs, on tensors without memory."""
    with FakeTensorMode():
        layer = TokenOutput(512, 32_000)
        outputs = torch.randn(4, 1024, 512, requires_grad=training)
        targets = torch.randint(32_000, (4, 1024))
        tracker = MemTracker()
        tracker.track_external(layer, outputs, targets)
        with tracker, torch.set_grad_enabled(training):
            _, loss = token_losses(layer, outputs, targets, 0.1)
            if training:
                loss.backward()  # type: ignore[no-untyped-call]
        [found] = tracker.get_tracker_snapshot("peak").values()
        return int(found["Total"]) - sum(each.nbytes for each in (*layer.parameters(), outputs, targets))


@pytest.mark.parametrize(("training", "factor"), [(True, 9), (False, 10)])
def test_blocks_take_a_fraction_of_the_memory_of_all_logits(
    training: bool, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = peak(training)
    monkeypatch.setattr(token_output, "BLOCK", 1 << 40)
    at_once = peak(training)
    assert at_once >= 2 * 4096 * 32_000 * 4  # the logits, and their log probabilities
    assert at_once > factor * blocks > 0
