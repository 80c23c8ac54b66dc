"""The convolutions follow their equations, and the receptive field follows its formula."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.models.conv import ConvNet, GatedConvolution


@pytest.mark.parametrize(
    ("depth", "kernel", "cycle", "field"),
    [(1, 2, 1, 2), (4, 2, 4, 16), (3, 3, 3, 15), (5, 2, 2, 8), (4, 3, 2, 13)],
)
def test_the_receptive_field_measured_by_gradients_is_the_formula(depth, kernel, cycle, field):
    torch.manual_seed(0)
    network = ConvNet(width=4, depth=depth, kernel=kernel, cycle=cycle).double()
    assert network.receptive_field == field
    inputs = torch.randn(1, 30, 4, dtype=torch.float64, requires_grad=True)
    network(inputs)[0][0, 25].square().sum().backward()
    seen = inputs.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert seen == list(range(26 - field, 26))


@pytest.mark.numeric
@pytest.mark.parametrize(("kernel", "dilation"), [(2, 1), (2, 4), (3, 2)])
def test_a_layer_is_the_gated_dilated_convolution_of_torch(kernel, dilation):
    torch.manual_seed(0)
    layer = GatedConvolution(width=5, hidden=7, kernel=kernel, dilation=dilation, dropout=0.0).double()
    inputs = torch.randn(2, 9, 5, dtype=torch.float64)
    residual, skip, _ = layer(inputs, None)
    channels = F.pad(F.layer_norm(inputs, (5,)).transpose(1, 2), ((kernel - 1) * dilation, 0))
    taps = layer.convolution.weight.view(14, kernel, 5).transpose(1, 2)
    content, gate = F.conv1d(channels, taps, layer.convolution.bias, dilation=dilation).chunk(2, 1)
    expected = F.conv1d(content.tanh() * gate.sigmoid(), layer.mix.weight[:, :, None], layer.mix.bias)
    torch.testing.assert_close(torch.cat([residual, skip], 2).transpose(1, 2), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.numeric
def test_the_network_sums_residuals_and_skips():
    torch.manual_seed(0)
    network, inputs = ConvNet(width=4, depth=3).double(), torch.randn(2, 9, 4, dtype=torch.float64)
    stream, skips = inputs, 0
    for layer in network.layers:
        residual, skip, _ = layer(stream, None)
        stream, skips = stream + residual, skips + skip
    expected = network.output(F.gelu(F.layer_norm(stream + skips, (4,))))
    torch.testing.assert_close(network(inputs)[0], expected, rtol=1e-12, atol=1e-12)


def test_the_state_holds_what_each_dilation_needs():
    _, state = ConvNet(width=4, depth=5, kernel=3, cycle=3)(torch.randn(2, 3, 4))
    assert [tuple(past.shape) for past in state] == [(2, size, 4) for size in (2, 4, 8, 2, 4)]


@pytest.mark.parametrize(("options", "words"), [({"depth": 0}, "depth=0"), ({"kernel": 1}, "kernel=1")])
def test_invalid_arguments_raise_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        ConvNet(width=4, **options)
