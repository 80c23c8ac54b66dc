"""A bag of words is independent of the order of its inputs."""

import pytest
import torch

from pipeline.models.bag_of_words import BagOfWords


@pytest.mark.numeric
def test_the_order_of_inputs_does_not_matter():
    torch.manual_seed(0)
    network, inputs = BagOfWords(width=8).double(), torch.randn(2, 6, 8, dtype=torch.float64)
    shuffled = inputs[:, torch.tensor([3, 0, 4, 1, 2, 5])]
    torch.testing.assert_close(network(shuffled)[0][:, 4:], network(inputs)[0][:, 4:], rtol=1e-12, atol=1e-12)
    assert (network(shuffled)[0][:, :2] - network(inputs)[0][:, :2]).abs().max() > 1e-3


@pytest.mark.numeric
def test_outputs_are_those_of_the_layers_on_the_mean():
    torch.manual_seed(0)
    network, inputs = BagOfWords(width=8).double(), torch.randn(2, 6, 8, dtype=torch.float64)
    outputs, _ = network(inputs)
    for position in range(6):
        expected = network.layers(inputs[:, : position + 1].mean(1))
        torch.testing.assert_close(outputs[:, position], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.numeric
def test_the_state_is_the_sum_and_the_count():
    network, inputs = BagOfWords(width=8), torch.randn(2, 6, 8)
    _, (total, count) = network(inputs)
    torch.testing.assert_close(total, inputs.sum(1))
    assert count.tolist() == [6, 6]


def test_the_sum_is_not_rounded_to_bfloat16():
    network = BagOfWords(width=8).bfloat16()
    _, (total, count) = network(torch.full((1, 1000, 8), 1.0, dtype=torch.bfloat16))
    assert total.tolist() == [[1000.0] * 8]
    assert count.tolist() == [1000]


def test_no_hidden_layer_raises_an_error():
    with pytest.raises(ValueError, match="depth=0"):
        BagOfWords(width=4, depth=0)
