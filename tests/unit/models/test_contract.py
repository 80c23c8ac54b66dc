"""Every network keeps the contract: causal, and equal outputs at once, in pieces and step by step."""

import copy

import pytest
import torch
from torch.nn import functional as F

from tests.unit.models.networks import (
    NETWORKS,
    WIDTH,
    assert_equal_to_rounding,
    build,
    every_network,
    random_inputs,
    read_in_pieces,
    save_and_load,
)


def test_the_eight_architectures_are_found():
    expected = {"NGram", "BagOfWords", "RNN", "LSTM", "GRU", "ConvNet", "LinearRecurrence", "Transformer"}
    assert expected <= set(NETWORKS)


@every_network
def test_output_has_the_width_of_the_input(make):
    network = build(make)
    assert network.width == WIDTH
    assert network(random_inputs())[0].shape == (3, 11, WIDTH)


@every_network
def test_gradient_to_later_inputs_is_exactly_zero(make):
    network, inputs = build(make), random_inputs().requires_grad_()
    outputs, _ = network(inputs)
    for position in (0, 4, 9):
        (gradient,) = torch.autograd.grad(outputs[:, position].square().sum(), inputs, retain_graph=True)
        assert gradient[:, position + 1 :].abs().max() == 0.0
        assert gradient[:, position].abs().min() > 0.0


@pytest.mark.numeric
@every_network
def test_changing_later_inputs_changes_nothing_before(make):
    network, inputs = build(make), random_inputs()
    changed = inputs.clone()
    changed[:, 6:] = 100 * torch.randn_like(changed[:, 6:])
    assert_equal_to_rounding(network(changed)[0][:, :6], network(inputs)[0][:, :6])
    assert (network(changed)[0][:, 6:] - network(inputs)[0][:, 6:]).abs().max() > 1e-3


@pytest.mark.numeric
@every_network
def test_padding_on_the_right_changes_nothing(make):
    network, inputs = build(make), random_inputs()
    padded = F.pad(inputs, (0, 0, 0, 7))
    assert_equal_to_rounding(network(padded)[0][:, :11], network(inputs)[0])


@pytest.mark.numeric
@every_network
@pytest.mark.parametrize("sizes", [[1] * 11, [5, 6], [1, 7, 3], [10, 1]], ids=str)
def test_reading_in_pieces_equals_reading_at_once(make, sizes):
    network, inputs = build(make), random_inputs()
    with torch.no_grad():
        assert_equal_to_rounding(read_in_pieces(network, inputs, sizes), network(inputs)[0])


@pytest.mark.numeric
@every_network
def test_sequences_are_independent(make):
    network, inputs = build(make), random_inputs()
    together = network(inputs)[0]
    for row in range(3):
        assert_equal_to_rounding(network(inputs[row : row + 1])[0][0], together[row])


@pytest.mark.numeric
@every_network
def test_saved_and_loaded_weights_are_the_same_network(make):
    network, other = build(make), make(width=WIDTH).double().eval()
    assert (other(random_inputs())[0] - network(random_inputs())[0]).abs().max() > 1e-3
    other.load_state_dict(save_and_load(network.state_dict()))
    assert torch.equal(other(random_inputs())[0], network(random_inputs())[0])


@pytest.mark.numeric
@every_network
def test_a_copy_computes_the_same_and_is_trained_independently(make):
    network = build(make)
    expected = network(random_inputs())[0]
    other = copy.deepcopy(network)
    assert torch.equal(other(random_inputs())[0], expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    assert (other(random_inputs())[0] - expected).abs().max() > 1e-3
    assert torch.equal(network(random_inputs())[0], expected)
