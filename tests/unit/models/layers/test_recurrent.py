"""RNN, LSTM and GRU follow their equations, and dropout applies to the connections named in the papers."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pipeline import state as states
from pipeline.models.gru import GRU
from pipeline.models.layers.recurrent import RecurrentLayer, RecurrentStack, VariationalDropout
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN

KINDS = {
    "RNN": RNN,
    "RNN with relu": partial(RNN, nonlinearity="relu"),
    "LSTM": LSTM,
    "GRU": GRU,
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def step_rnn(nonlinearity, x, h, w, u, b, c):
    return (nonlinearity(w @ x + b + u @ h[0] + c),)


def step_lstm(x, state, w, u, b, c):
    h, cell = state
    i, f, g, o = (w @ x + b + u @ h + c).chunk(4)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def step_gru(x, state, w, u, b, c):
    (h,) = state
    from_input, from_state = (w @ x + b).chunk(3), (u @ h + c).chunk(3)
    r = torch.sigmoid(from_input[0] + from_state[0])
    z = torch.sigmoid(from_input[1] + from_state[1])
    n = torch.tanh(from_input[2] + r * from_state[2])
    return ((1 - z) * n + z * h,)


STEPS = {
    "RNN": partial(step_rnn, torch.tanh),
    "RNN with relu": partial(step_rnn, torch.relu),
    "LSTM": step_lstm,
    "GRU": step_gru,
}


def by_the_equations(network: RecurrentStack, step, sequence: Tensor, parts: int) -> Tensor:
    """One sequence, one layer after the other, one position after the other."""
    for layer in network.layers:
        w, u, b, c = layer.kernel.parameters()
        state, outputs = (torch.zeros(u.shape[1], dtype=u.dtype),) * parts, []
        for x in sequence:
            state = step(x, state, w, u, b, c)
            outputs.append(state[0])
        sequence = torch.stack(outputs)
    return sequence


def noisy(network: nn.Module) -> nn.Module:
    """Set random biases, which are zero initially."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.numeric
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_follow_the_equations(kind):
    torch.manual_seed(0)
    network = noisy(KINDS[kind](width=5, depth=3, hidden=7)).double()
    inputs = torch.randn(2, 6, 5, dtype=torch.float64)
    outputs, _ = network(inputs)
    for row in range(2):
        expected = by_the_equations(network, STEPS[kind], inputs[row], parts=2 if kind == "LSTM" else 1)
        torch.testing.assert_close(outputs[row], expected, rtol=1e-12, atol=1e-12)


@every_kind
def test_layers_have_hidden_features_and_the_last_has_width(make):
    network = make(width=6, depth=3, hidden=10)
    assert [layer.kernel.hidden_size for layer in network.layers] == [10, 10, 6]
    _, state = network(torch.randn(4, 3, 6))
    assert [tuple(part.shape for part in layer) for layer in state] == [
        tuple([(4, size)] * (2 if make is LSTM else 1)) for size in (10, 10, 6)
    ]


@pytest.mark.numeric
@every_kind
def test_recurrent_weights_of_each_gate_start_orthogonal(make):
    for layer in make(width=8, depth=2, hidden=12).layers:
        size = layer.kernel.hidden_size
        for gate in layer.kernel.weight_hh_l0.split(size):
            torch.testing.assert_close(gate @ gate.T, torch.eye(size), rtol=1e-5, atol=1e-5)


def test_forget_gates_start_open():
    network = LSTM(width=4, depth=2, forget_bias=1.5)
    for layer in network.layers:
        total = layer.kernel.bias_ih_l0 + layer.kernel.bias_hh_l0
        assert total.tolist() == [0.0] * 4 + [1.5] * 4 + [0.0] * 8


@pytest.mark.numeric
@every_kind
def test_weight_drop_of_zero_computes_the_fused_kernel(make):
    torch.manual_seed(0)
    network = make(width=8).double().train()
    inputs = torch.randn(2, 5, 8, dtype=torch.float64)
    _, state = network(inputs)
    plain = network(inputs, state)
    for layer in network.layers:
        layer.weight_drop = 1e-9  # uses the path of dropped weights without dropping any
    torch.testing.assert_close(network(inputs, state)[0], plain[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(network(inputs, state)[1], plain[1], rtol=1e-8, atol=1e-8)


@pytest.mark.numeric
@every_kind
def test_weight_drop_zeroes_its_fraction_of_recurrent_weights_and_leaves_the_stored_ones(make):
    torch.manual_seed(0)
    network = make(width=64, depth=1, weight_drop=0.3).train()
    stored = copy.deepcopy(network.state_dict())
    # A dropped weight gets no gradient in that call; through the carried state, all others do.
    _, state = network(torch.randn(64, 3, 64))
    network(torch.randn(64, 1, 64), states.detach(state))[0].square().sum().backward()
    weight, recurrent, *biases = network.layers[0].kernel.parameters()
    dropped = (recurrent.grad == 0).double().mean().item()
    assert dropped == pytest.approx(0.3, abs=0.02)
    assert (weight.grad == 0).double().mean().item() == 0.0
    assert all(bias.grad.any() for bias in biases)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, stored[name])


@pytest.mark.numeric
@every_kind
def test_weight_drop_acts_in_training_alone(make):
    torch.manual_seed(0)
    network, inputs = make(width=16, weight_drop=0.5), torch.randn(2, 5, 16)
    plain = make(width=16)
    plain.load_state_dict(network.state_dict())  # parameter names do not depend on weight drop
    assert (network(inputs)[0] - network(inputs)[0]).abs().max() > 1e-3
    assert torch.equal(network.eval()(inputs)[0], plain.eval()(inputs)[0])


@pytest.mark.numeric
def test_where_autocast_has_no_lstm_it_is_computed_in_float32(monkeypatch):
    """On every processor; torch raises an error on those without AVX-512."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    layer = RecurrentLayer(nn.LSTM(3, 4, batch_first=True), 0.0)
    inputs = torch.randn(2, 5, 3)
    exact, (hidden, _) = layer(inputs, None)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = layer(inputs, None)
        again, _ = layer(inputs.bfloat16(), state)
    assert torch.equal(outputs, exact)
    assert torch.equal(state[0], hidden)
    expected, _ = layer(inputs.bfloat16().float(), state)
    assert torch.equal(again, expected)
    with torch.autocast("cpu", torch.bfloat16):
        lower, _ = layer.bfloat16()(inputs.bfloat16(), None)  # weights as under FSDP
    assert lower.dtype == torch.bfloat16


@pytest.mark.numeric
def test_variational_masks_are_the_same_at_all_positions_and_differ_between_sequences():
    torch.manual_seed(0)
    outputs = VariationalDropout(0.4).train()(torch.ones(50, 7, 40))
    assert torch.equal(outputs, outputs[:, :1].expand_as(outputs))
    assert outputs.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
    assert (outputs == 0).double().mean().item() == pytest.approx(0.4, abs=0.04)
    assert not torch.equal(outputs[0], outputs[1])


@pytest.mark.numeric
def test_ordinary_masks_differ_between_positions():
    torch.manual_seed(0)
    network = LSTM(width=40, output_dropout=0.5).train()
    dropped = network(torch.randn(2, 5, 40))[0] == 0
    assert not torch.equal(dropped[:, 0], dropped[:, 1])


@pytest.mark.parametrize("variational", [False, True])
def test_dropout_rates_are_those_of_input_hidden_and_output(variational):
    network = LSTM(depth=3, dropout=0.2, input_dropout=0.6, output_dropout=0.4, variational=variational)
    rates = [each.rate if variational else each.p for each in network.dropouts]
    assert rates == [0.6, 0.2, 0.2, 0.4]


def test_the_carried_state_is_not_dropped():
    torch.manual_seed(0)
    network = LSTM(width=64, depth=1, output_dropout=0.9).train()
    outputs, ((hidden, _),) = network(torch.randn(2, 5, 64))
    assert (outputs == 0).double().mean() > 0.8
    assert (hidden != 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"depth": 0}, "depth=0"), ({"dropout": 1.0}, "1.0"), ({"weight_drop": -0.1}, "-0.1")],
    ids=str,
)
def test_invalid_arguments_raise_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        LSTM(width=4, **options)
