"""The carried state of every network can be split, selected, reset, saved, and differentiated through."""

import itertools

import pytest
import torch
from torch.utils import _pytree as pytree

from pipeline import state as states
from tests.unit.models.networks import (
    ALL,
    GROWING,
    WIDTH,
    assert_equal_to_rounding,
    build,
    every_network,
    random_inputs,
    read_in_pieces,
    save_and_load,
)


@pytest.mark.numeric
@every_network
def test_the_state_after_pieces_is_the_state_after_the_whole(make):
    network, inputs = build(make), random_inputs()
    _, whole = network(inputs)
    _, half = network(inputs[:, :5])
    _, both = network(inputs[:, 5:], half)
    pytree.tree_map(assert_equal_to_rounding, both, whole)


@pytest.mark.numeric
@every_network
@pytest.mark.parametrize(
    "between",
    [
        states.detach,
        lambda state: states.concatenate(states.split(state, [1, 2])),
        lambda state: states.select(states.select(state, torch.tensor([2, 0, 1])), torch.tensor([1, 2, 0])),
        save_and_load,
    ],
    ids=["detached", "split and concatenated", "permuted and back", "saved and loaded"],
)
def test_a_carried_state_survives(make, between):
    network, inputs = build(make), random_inputs()
    outputs = read_in_pieces(network, inputs, [3, 4, 4], between)
    assert_equal_to_rounding(outputs, network(inputs)[0])


@pytest.mark.numeric
@every_network
def test_selected_rows_of_the_state_continue_as_those_sequences(make):
    network, inputs = build(make), random_inputs()
    index = torch.tensor([2, 2, 0, 1])
    _, state = network(inputs[:, :5])
    outputs, _ = network(inputs[index, 5:], states.select(state, index))
    assert_equal_to_rounding(outputs, network(inputs)[0][index, 5:])


@pytest.mark.numeric
@every_network
def test_a_state_of_zeros_is_the_start(make):
    network, inputs = build(make), random_inputs()
    _, state = network(random_inputs(3, 6) + 1)
    reset = states.map_state(torch.zeros_like, state)
    assert_equal_to_rounding(network(inputs, reset)[0], network(inputs)[0])


@pytest.mark.numeric
@every_network
def test_rows_can_be_reset_alone(make):
    network, inputs = build(make), random_inputs()
    _, state = network(inputs[:, :5])
    keep = torch.tensor([True, False, True])
    state = states.map_state(lambda leaf: leaf * keep.view(-1, *[1] * (leaf.dim() - 1)).to(leaf.dtype), state)
    outputs, _ = network(inputs[:, 5:], state)
    assert_equal_to_rounding(outputs[keep], network(inputs)[0][keep, 5:])
    assert_equal_to_rounding(outputs[1], network(inputs[:, 5:])[0][1])


@pytest.mark.numeric
@every_network
def test_gradients_flow_through_the_carried_state(make):
    network, inputs = build(make), random_inputs().requires_grad_()
    weights = torch.randn(3, 11, WIDTH, dtype=torch.float64)
    (whole,) = torch.autograd.grad((network(inputs)[0] * weights).sum(), inputs)
    (pieces,) = torch.autograd.grad((read_in_pieces(network, inputs, [4, 2, 5]) * weights).sum(), inputs)
    torch.testing.assert_close(pieces, whole, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(ALL) - GROWING))
def test_the_state_does_not_grow(name):
    network, inputs = build(ALL[name]), random_inputs()
    _, state = network(inputs[:, :1])
    first = states.size_in_bytes(state)
    for _ in range(3):
        _, state = network(inputs, state)
        assert states.size_in_bytes(state) == first


@pytest.mark.parametrize("name", sorted(GROWING))
def test_a_full_cache_grows_by_the_same_with_every_step(name):
    network, inputs, sizes, state = build(ALL[name]), random_inputs(), [], None
    for _ in range(4):
        _, state = network(inputs[:, :1], state)
        sizes.append(states.size_in_bytes(state))
    growth = {after - before for before, after in itertools.pairwise(sizes)}
    assert growth == {4 * 2 * 3 * WIDTH * 8}  # layers, key and value, sequences, features, bytes
