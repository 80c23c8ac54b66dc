"""The temporal convolutional network is that of its paper, with torch's convolutions and weight normalization."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from pipeline.models.tcn import TCN, TemporalBlock, WeightNormLinear


@pytest.mark.parametrize(("depth", "kernel", "field"), [(1, 2, 3), (3, 2, 15), (2, 3, 13), (3, 3, 29)])
def test_the_receptive_field_measured_by_gradients_is_the_formula(depth: int, kernel: int, field: int) -> None:
    torch.manual_seed(0)
    network = TCN(width=16, depth=depth, kernel=kernel).double()
    assert network.receptive_field == field
    inputs = torch.randn(32, 40, 16, dtype=torch.float64, requires_grad=True)  # a path may end at a relu
    network(inputs)[0][:, 35].sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(36 - field, 36))


def convolution(layer: WeightNormLinear, inputs: int, kernel: int, dilation: int) -> nn.Module:
    """Return torch's convolution with normalized weights, of the same direction and length."""
    outputs = len(layer.weight)
    found = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, dtype=torch.float64)
    with torch.no_grad():
        found.weight.copy_(layer.weight.view(outputs, kernel, inputs).transpose(1, 2))
        found.bias.copy_(layer.bias)
    normed = weight_norm(found)
    normed.parametrizations.weight.original0.data = layer.length.detach().view(-1, 1, 1).clone()
    return normed


@pytest.mark.numeric
@pytest.mark.parametrize(("inputs", "outputs", "kernel", "dilation"), [(5, 5, 2, 1), (5, 7, 3, 2)])
def test_a_block_is_that_of_the_paper_and_so_are_its_gradients(
    inputs: int, outputs: int, kernel: int, dilation: int
) -> None:
    torch.manual_seed(0)
    block = TemporalBlock(inputs, outputs, kernel, dilation, 0.0, True).double()
    with torch.no_grad():
        for each in (block.first.length, block.second.length):
            each.mul_(1.5)  # lengths that are not those of the directions
    first = convolution(block.first, inputs, kernel, dilation)
    second = convolution(block.second, outputs, kernel, dilation)
    given = torch.randn(2, 9, inputs, dtype=torch.float64)

    def padded(values: Tensor) -> Tensor:
        return F.pad(values, ((kernel - 1) * dilation, 0))

    inside = second(padded(first(padded(given.transpose(1, 2))).relu())).relu()
    expected = (inside.transpose(1, 2) + block.residual(given)).relu()
    found, _ = block(given, None)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.square().sum().backward()
    expected.square().sum().backward()
    lengths = first.parametrizations.weight.original0.grad.flatten()
    torch.testing.assert_close(block.first.length.grad, lengths, rtol=1e-10, atol=1e-10)
    directions = first.parametrizations.weight.original1.grad.transpose(1, 2).flatten(1)
    torch.testing.assert_close(block.first.weight.grad, directions, rtol=1e-10, atol=1e-10)


@pytest.mark.numeric
def test_the_sizes_of_the_paper_have_its_number_of_parameters() -> None:
    """8 blocks of 25 with kernel 7 for pixels: "about 70K" (table 1); the first convolution there has one input."""
    network = TCN(width=25, depth=8, kernel=7)
    one_input = 7 * 24 * 25 - 2 * 25  # fewer weights in, and a residual of one weight and one bias per feature
    assert sum(each.numel() for each in network.parameters()) - one_input + 25 * 10 + 10 == pytest.approx(
        70_000, rel=0.05
    )


def test_dropped_features_are_those_of_all_positions_if_dropout_is_variational() -> None:
    torch.manual_seed(0)
    for variational in (True, False):
        network = TCN(width=32, depth=1, input_dropout=0.5, variational=variational)
        dropped = network.input_dropout(torch.ones(4, 6, 32)) == 0
        assert (dropped.any(1) == dropped.all(1)).all() == variational
        assert 0.3 < dropped.float().mean() < 0.7


@pytest.mark.parametrize(
    ("options", "words"),
    [({"depth": 0}, "depth=0"), ({"kernel": 1}, "kernel=1"), ({"dropout": 1.0}, "dropout rate 1.0")],
)
def test_invalid_arguments_raise_an_error(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TCN(width=4, **options)  # type: ignore[arg-type]
