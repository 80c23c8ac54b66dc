"""The neural n-gram reads exactly n-1 inputs and computes Bengio's equation."""

import pytest
import torch

from pipeline.models.ngram import NGram


@pytest.mark.parametrize("order", [2, 3, 5])
def test_an_output_depends_on_exactly_n_minus_1_inputs(order):
    torch.manual_seed(0)
    network = NGram(width=4, order=order).double()
    inputs = torch.randn(1, 12, 4, dtype=torch.float64, requires_grad=True)
    network(inputs)[0][0, 9].sum().backward()
    seen = inputs.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert seen == list(range(9 - order + 2, 10))


@pytest.mark.numeric
def test_outputs_follow_the_equation():
    torch.manual_seed(0)
    network = NGram(width=3, order=4, hidden=5).double()
    inputs = torch.randn(1, 6, 3, dtype=torch.float64)
    outputs, _ = network(inputs)
    for position in range(6):
        read = [inputs[0, p] if p >= 0 else torch.zeros(3).double() for p in range(position - 2, position + 1)]
        context = torch.cat(read)
        hidden = torch.tanh(network.hidden.weight @ context + network.hidden.bias)
        expected = network.output.weight @ hidden + network.direct.weight @ context + network.direct.bias
        torch.testing.assert_close(outputs[0, position], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.numeric
def test_the_state_is_the_last_n_minus_1_inputs():
    network, inputs = NGram(width=4, order=4), torch.randn(2, 6, 4)
    _, state = network(inputs)
    assert torch.equal(state, inputs[:, 3:])
    _, short = network(inputs[:, :1])
    assert torch.equal(short, torch.cat([torch.zeros(2, 2, 4), inputs[:, :1]], 1))


def test_an_order_without_inputs_raises_an_error():
    with pytest.raises(ValueError, match="order=1"):
        NGram(width=4, order=1)
