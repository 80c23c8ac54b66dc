"""Every network learns: gradients reach every parameter, dropout acts in training alone, bfloat16 is near float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.unit.models.networks import WIDTH, build, every_network, random_inputs, read_in_pieces


@every_network
def test_gradients_reach_every_parameter(make):
    network = build(make).train()
    network(random_inputs())[0].pow(3).sum().backward()
    silent = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    assert silent == []


@pytest.mark.learns
@every_network
def test_it_overfits_one_batch(make, seed, record_property):
    network, inputs = build(make, torch.float32, seed).train(), random_inputs(4, 8, torch.float32)
    labels = torch.randint(8, (4, 8))
    head = nn.Linear(WIDTH, 8)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-2)
    steps, loss = 0, torch.tensor(torch.inf)
    while loss > 0.02 and steps < 500:  # guessing costs ln 8 = 2.08; ten seeds: at most 136 ± 15 steps
        steps += 1
        optimizer.zero_grad()
        loss = F.cross_entropy(head(network(inputs)[0]).flatten(0, 1), labels.flatten())
        loss.backward()
        optimizer.step()
    record_property("steps", steps)
    assert loss <= 0.02


@pytest.mark.numeric
@every_network
def test_dropout_acts_in_training_alone(make):
    network, plain, inputs = build(make, dropout=0.5), build(make), random_inputs()
    assert torch.equal(network(inputs)[0], plain(inputs)[0])
    assert torch.equal(network(inputs)[0], network(inputs)[0])
    network.train()
    assert (network(inputs)[0] - network(inputs)[0]).abs().max() > 1e-3


@every_network
def test_bfloat16_autocast_carries_the_state_too(make):
    network, inputs = build(make, torch.float32), random_inputs(dtype=torch.float32)
    exact = network(inputs)[0]
    with torch.autocast("cpu", torch.bfloat16):
        whole = network(inputs)[0].float()
        pieces = read_in_pieces(network, inputs, [5, 1, 5]).float()
    _, exact_state = network(inputs[:, :5])
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = network(inputs[:, 5:], exact_state)  # a state from before autocast
    for outputs, expected in ((whole, exact), (pieces, exact), (mixed.float(), exact[:, 5:])):
        assert (outputs - expected).abs().max() < 0.1 * exact.abs().max()


@every_network
def test_a_network_of_bfloat16_weights_reads_and_steps(make):
    network, inputs = build(make, torch.bfloat16), random_inputs(dtype=torch.bfloat16)
    exact = build(make, torch.float32)(inputs.float())[0]
    outputs = read_in_pieces(network, inputs, [5, 1, 5])
    assert outputs.dtype == torch.bfloat16
    assert (outputs.float() - exact).abs().max() < 0.15 * exact.abs().max()
