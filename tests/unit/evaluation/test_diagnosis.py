"""Diagnoses follow formulas for decays, receptive fields, hand-set gates and uniform attention."""

import json
import math

import pytest
import torch
from torch import nn

from pipeline.data.batch import IGNORE, LabelBatch, TokenBatch
from pipeline.errors import ConfigError
from pipeline.evaluation.diagnosis import (
    attention_statistics,
    diagnose,
    effective_memory,
    gradient_by_lag,
    receptive_field,
    saturation,
)
from pipeline.models.bag_of_words import BagOfWords
from pipeline.models.conv import ConvNet
from pipeline.models.gru import GRU
from pipeline.models.layers.attention import SelfAttention
from pipeline.models.layers.cross_attention import Memory
from pipeline.models.layers.recurrent import RecurrentLayer
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.ngram import NGram
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.tasks.classifier import Classifier
from pipeline.tasks.language_model import LanguageModel

LENGTH = 40


def seeded(make, **options):
    torch.manual_seed(1)
    return make(width=8, **options).double().eval()


def random_inputs(length=LENGTH):
    return torch.randn(3, length, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class LinearRNN(nn.Module):
    """h_t = r Q h_{t-1} + x_t with an orthogonal Q: its spectral radius is r, for any power."""

    def __init__(self, radius):
        super().__init__()
        torch.manual_seed(3)
        self.turn = radius * torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]

    def forward(self, inputs, state=None):
        hidden, outputs = torch.zeros_like(inputs[:, 0]) if state is None else state, []
        for each in inputs.unbind(1):
            hidden = hidden @ self.turn.T + each
            outputs.append(hidden)
        return torch.stack(outputs, 1), hidden


class Projected(nn.Module):
    """A task whose loss is a projection of the network's output."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.direction = torch.linspace(1, 2, 8, dtype=torch.float64)

    def position_losses(self, batch):
        return self.network(batch)[0] @ self.direction


@pytest.mark.numeric
@pytest.mark.parametrize("radius", [0.7, 1.0, 1.2], ids=["vanishes", "stays", "explodes"])
def test_the_gradient_of_a_linear_rnn_is_a_power_of_its_spectral_radius(radius):
    task = Projected(LinearRNN(radius))
    found, _ = diagnose(task, random_inputs())
    expected = [float(task.direction.norm()) * radius**lag for lag in range(LENGTH)]
    assert found.gradient == pytest.approx(expected, rel=1e-9)
    total = sum(radius**lag for lag in range(LENGTH))
    within = next(n for n in range(LENGTH) if sum(radius**lag for lag in range(n + 1)) >= 0.95 * total)
    assert found.memory == within
    assert (found.field, found.sequences, found.positions) == (LENGTH, 3, LENGTH)


@pytest.mark.parametrize(
    ("make", "options", "field"),
    [
        (NGram, {"order": 5}, 4),
        (ConvNet, {"depth": 3, "kernel": 3, "cycle": 2}, 1 + 2 * (1 + 2 + 1)),
        (ConvNet, {"depth": 4}, 1 + 1 + 2 + 4 + 8),
        (Transformer, {"depth": 2, "heads": 2}, LENGTH),
        (Transformer, {"depth": 2, "heads": 2, "window": 6}, 2 * 5 + 1),
        (BagOfWords, {}, LENGTH),
        (LSTM, {}, LENGTH),
        (LinearRecurrence, {"depth": 2}, LENGTH),
    ],
)
def test_the_receptive_field_is_that_of_the_formula(make, options, field):
    assert receptive_field(seeded(make, **options), random_inputs()) == field


def test_the_gradient_ends_where_the_receptive_field_ends():
    found, _ = diagnose(Projected(seeded(ConvNet, depth=4)), random_inputs())
    assert found.field == 16
    assert min(found.gradient[:16]) > 0
    assert found.gradient[16:] == [0.0] * (LENGTH - 16)


@pytest.mark.numeric
def test_a_model_that_has_exploded_is_diagnosed_in_strict_json():
    task = Projected(LinearRNN(1e30))
    found, _ = diagnose(task, random_inputs())
    assert found.gradient[0] == pytest.approx(float(task.direction.norm()))
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["gradient"][-1] is None
    nothing = torch.full((2, 3), torch.nan)
    assert gradient_by_lag(torch.zeros(2, 3, 8, requires_grad=True), nothing) == [0.0]
    assert effective_memory([0.0]) == 0


@pytest.mark.numeric
def test_only_predicted_positions_have_gradients():
    inputs = random_inputs(6).requires_grad_()
    losses = inputs.square().sum(-1).cumsum(1)  # the derivative of loss t by input s is 2 x_s
    hidden = torch.full_like(losses, torch.nan)
    hidden[:2, 4] = losses[:2, 4]
    lags = [float(2 * inputs[:2, 4 - lag].norm(dim=-1).mean()) for lag in range(5)]
    assert gradient_by_lag(inputs, hidden) == pytest.approx(lags)


def test_effective_memory_is_the_smallest_lag_with_the_fraction():
    assert effective_memory([95.0, 5.0, 0.0]) == 0
    assert effective_memory([94.0, 1.0, 5.0]) == 1
    assert effective_memory([0.0, 0.0, 1.0]) == 2


@pytest.mark.numeric
def test_gates_of_a_hand_set_lstm_are_open_and_closed():
    network = seeded(LSTM, depth=1)
    layer = network.layers[0]
    for parameter in layer.kernel.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        layer.kernel.bias_ih_l0.copy_(torch.tensor([10.0, -10.0, 0.0, 0.0]).repeat_interleave(8))
    found, _ = diagnose(Projected(network), random_inputs())
    assert found.gates["layers.0 input"] == {"mean": pytest.approx(1, abs=1e-4), "low": 0.0, "high": 1.0}
    assert found.gates["layers.0 forget"] == {"mean": pytest.approx(0, abs=1e-4), "low": 1.0, "high": 0.0}
    assert found.gates["layers.0 output"] == {"mean": 0.5, "low": 0.0, "high": 0.0}


@pytest.mark.numeric
def test_lstm_and_gru_states_follow_from_the_gates_as_in_the_papers():
    inputs = random_inputs(7)
    lstm = RecurrentLayer(nn.LSTM(8, 8, batch_first=True), 0.0).double()
    state = (random_inputs(1)[:, 0], random_inputs(2)[:, 1])
    gates, (outputs, _) = lstm.gate_values(inputs, state), lstm(inputs, state)
    weight, recurrent, bias, recurrent_bias = lstm.kernel.parameters()
    hidden, cell = state
    for at in range(7):
        both = inputs[:, at] @ weight.T + hidden @ recurrent.T + bias + recurrent_bias
        cell = gates["forget"][:, at] * cell + gates["input"][:, at] * both[:, 16:24].tanh()
        hidden = gates["output"][:, at] * cell.tanh()
        torch.testing.assert_close(outputs[:, at], hidden)
    gru = RecurrentLayer(nn.GRU(8, 8, batch_first=True), 0.0).double()
    gates, (outputs, _) = gru.gate_values(inputs, None), gru(inputs, None)
    weight, recurrent, bias, recurrent_bias = gru.kernel.parameters()
    hidden = torch.zeros(3, 8, dtype=torch.float64)
    for at in range(7):
        past = hidden @ recurrent[16:].T + recurrent_bias[16:]
        new = (inputs[:, at] @ weight[16:].T + bias[16:] + gates["reset"][:, at] * past).tanh()
        hidden = (1 - gates["update"][:, at]) * new + gates["update"][:, at] * hidden
        torch.testing.assert_close(outputs[:, at], hidden)
    assert RecurrentLayer(nn.RNN(8, 8, batch_first=True), 0.0).double().gate_values(inputs, None) == {}


@pytest.mark.parametrize(("make", "gates"), [(GRU, 4), (RNN, 0), (LSTM, 6), (LinearRecurrence, 8), (ConvNet, 8)])
def test_each_architecture_returns_its_gates(make, gates):
    found, _ = diagnose(Projected(seeded(make)), random_inputs(9))
    assert len(found.gates) == gates
    assert all(0 <= shares["low"] + shares["high"] <= 1 for shares in found.gates.values())


def test_a_layer_with_the_name_of_the_method_is_ignored():
    network = seeded(RNN)
    network.layers[0].weights = network.dropouts[0].gate_values = nn.Linear(8, 8)
    found, maps = diagnose(Projected(network), random_inputs(9))
    assert (found.gates, found.attention, maps) == ({}, {}, {})


@pytest.mark.numeric
def test_saturation_counts_values_beyond_the_thresholds():
    found = saturation(torch.tensor([[[0.05, 0.5], [0.95, 0.99]]]))
    assert found == {"mean": pytest.approx(0.6225), "low": 0.25, "high": 0.5}


@pytest.mark.numeric
def test_the_entropy_of_uniform_attention_is_the_logarithm_of_its_places():
    attention = SelfAttention(8, 2, 0.0)
    nn.init.zeros_(attention.project.weight)
    weights = attention.weights(random_inputs(10).float(), None, None, None)
    found = attention_statistics(weights)
    expected = sum(math.log(n) for n in range(1, 11)) / 10
    assert found["entropy"] == pytest.approx([expected] * 2)
    assert found["uniform"] == pytest.approx([expected] * 2)
    assert found["distance"] == pytest.approx([sum(range(10)) / 2 / 10] * 2)
    one = attention_statistics(torch.full((1, 1, 1, 10), 0.1))
    assert one["entropy"] == pytest.approx([math.log(10)])


@pytest.mark.numeric
@pytest.mark.parametrize("window", [None, 4])
def test_attention_weights_reproduce_the_outputs(window):
    network, inputs = seeded(Transformer, depth=1, heads=2, window=window), random_inputs(9)
    attention, seen = network.layers[0].attention, []
    attention.register_forward_hook(lambda _, given, made: seen.append((given, made)))
    network(inputs)
    [(given, (outputs, (_, value)))] = seen
    mixed = (attention.weights(*given).double() @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.output(mixed), outputs, rtol=1e-5, atol=1e-6)


def language_model(network):
    torch.manual_seed(4)
    return LanguageModel(network, 11)


def token_batch(ignored=0):
    tokens = torch.randint(11, (4, 13), generator=torch.Generator().manual_seed(5))
    targets = tokens[:, 1:].clone()
    targets[:, :ignored] = IGNORE
    return TokenBatch(tokens[:, :-1], targets, None, torch.arange(4), 0, 0, None)


@pytest.mark.numeric
def test_the_loss_by_position_is_that_of_the_language_model():
    task, batch = language_model(LSTM(width=8)).eval(), token_batch(ignored=3)
    found, _ = diagnose(task, batch)
    logits, _ = task(batch.inputs)
    nats = nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets.clamp(min=0), reduction="none").mean(0)
    assert found.loss[:3] == [None] * 3
    assert found.loss[3:] == pytest.approx(nats[3:].tolist(), rel=1e-5)


@pytest.mark.numeric
def test_a_diagnosis_leaves_task_and_generator_as_they_were():
    task = language_model(Transformer(width=8, depth=2, heads=2, dropout=0.5)).train()
    task.network.layers[0].eval()
    modes, draws = [module.training for module in task.modules()], torch.get_rng_state()
    first, maps = diagnose(task, token_batch())
    assert first == diagnose(task, token_batch())[0]  # without dropout
    assert [module.training for module in task.modules()] == modes
    assert torch.equal(torch.get_rng_state(), draws)
    assert all(parameter.grad is None for parameter in task.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.modules())
    assert [*maps] == [*first.attention] == ["layers.0.attention", "layers.1.attention"]
    torch.testing.assert_close(maps["layers.0.attention"].sum(-1), torch.ones(2, 12))


class Reader(nn.Module):
    """An encoder that is one causal network."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.network, self.width = NGram(width=8, order=4), 8

    def forward(self, vectors):
        outputs, _ = self.network(vectors)
        return Memory(outputs, torch.ones(outputs.shape[:2], dtype=torch.bool), outputs[:, -1])


@pytest.mark.numeric
def test_a_classifier_has_a_loss_at_the_last_position_alone():
    task = Classifier(Reader(), 3).eval()
    vectors, labels = random_inputs(9).float(), torch.tensor([2, IGNORE, 0])
    found, _ = diagnose(task, LabelBatch((vectors,), labels, torch.arange(3), 2, 0, 0, 0))
    assert found.loss[:-1] == [None] * 8
    nats = nn.functional.cross_entropy(task(vectors)[[0, 2]], labels[[0, 2]])
    assert found.loss[-1] == pytest.approx(float(nats), rel=1e-5)
    assert found.field == 3
    assert min(found.gradient[:3]) > 0
    assert found.gradient[3:] == [0.0] * 6


def test_a_task_without_position_losses_raises_an_error():
    with pytest.raises(ConfigError, match="Linear cannot be diagnosed"):
        diagnose(nn.Linear(2, 2), None)
