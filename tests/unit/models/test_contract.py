"""Every network keeps the contract: causal, and the same whether it reads at once, in pieces or step by step.

Networks are found by walking `pipeline.models`, so a new architecture is tested without an edit here.

Legend: B sequences, T positions, D features.
"""

import copy
import io
import itertools
import pkgutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import signature

import pytest
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import pipeline.models
from pipeline import state as states
from pipeline.models.conv import ConvNet
from pipeline.models.layers.attention import SelfAttention
from pipeline.models.layers.feedforward import GELU
from pipeline.models.lstm import LSTM
from pipeline.models.ngram import NGram
from pipeline.models.pixel_cnn import PixelCNN
from pipeline.models.rnn import RNN
from pipeline.models.row_lstm import RowLSTM
from pipeline.models.transformer import Transformer

WIDTH = 16
Make = Callable[..., nn.Module]


def exported_networks(causal: bool = True) -> list[type[nn.Module]]:
    """Networks that carry a state; else those that read a window at once."""
    found = []
    for entry in pkgutil.walk_packages(pipeline.models.__path__, "pipeline.models."):
        module = import_module(entry.name)
        exported = [getattr(module, name) for name in getattr(module, "__all__", ())]
        classes = [each for each in exported if isinstance(each, type) and issubclass(each, nn.Module)]
        networks = [each for each in classes if not issubclass(each, LightningModule)]
        found += [each for each in networks if ("state" in signature(each.forward).parameters) == causal]
    return found


NETWORKS: dict[str, Make] = {network.__name__: network for network in exported_networks()}
VARIANTS: dict[str, Make] = {
    "NGram of order 2": partial(NGram, order=2),
    "RNN with relu": partial(RNN, nonlinearity="relu"),
    "LSTM wider inside": partial(LSTM, depth=3, hidden=24),
    "ConvNet of kernel 3": partial(ConvNet, kernel=3, depth=4, cycle=3, hidden=24),
    "Transformer with learned positions": partial(Transformer, positions=64, feedforward=GELU, heads=2),
    "Transformer with a window": partial(Transformer, window=4),
    "Transformer with a window of 1": partial(Transformer, window=1),
    "PixelCNN": partial(PixelCNN, columns=4),  # of several rows in so few positions
    "PixelCNN in colour": partial(PixelCNN, columns=6, channels=2, first_kernel=5, depth=2),
    "RowLSTM": partial(RowLSTM, columns=4),
    "RowLSTM in colour": partial(RowLSTM, columns=6, channels=2, first_kernel=5, depth=1),
}
ALL = NETWORKS | VARIANTS
GROWING = {"Transformer", "Transformer with learned positions"}  # their cache holds all that was read
every_network = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


def build(make: Make, dtype: torch.dtype = torch.float64, seed: int = 1, **options: object) -> nn.Module:
    torch.manual_seed(seed)
    return make(width=WIDTH, **options).to(dtype).eval()


def random_inputs(sequences: int = 3, positions: int = 11, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(sequences, positions, WIDTH, dtype=dtype)


def read_in_pieces(
    network: nn.Module, inputs: Tensor, sizes: list[int], between: Callable = lambda state: state
) -> Tensor:
    state, outputs = None, []
    for piece in inputs.split(sizes, 1):
        output, state = network(piece, state)
        state = between(state)
        outputs.append(output)
    return torch.cat(outputs, 1)


def assert_equal_to_rounding(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_the_eight_architectures_are_found():
    wanted = {"NGram", "BagOfWords", "RNN", "LSTM", "GRU", "ConvNet", "LinearRecurrence", "Transformer"}
    assert wanted <= set(NETWORKS)


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
def test_the_state_after_pieces_is_the_state_after_the_whole(make):
    network, inputs = build(make), random_inputs()
    _, whole = network(inputs)
    _, half = network(inputs[:, :5])
    _, both = network(inputs[:, 5:], half)
    pytree.tree_map(assert_equal_to_rounding, both, whole)


def save_and_load(state: states.State) -> states.State:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


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
def test_selected_rows_of_the_state_go_on_as_those_sequences(make):
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
def test_sequences_do_not_see_each_other(make):
    network, inputs = build(make), random_inputs()
    together = network(inputs)[0]
    for row in range(3):
        assert_equal_to_rounding(network(inputs[row : row + 1])[0][0], together[row])


@every_network
def test_gradients_reach_every_parameter(make):
    network = build(make).train()
    network(random_inputs())[0].pow(3).sum().backward()
    silent = [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]
    assert silent == []


@pytest.mark.numeric
@every_network
def test_gradients_flow_through_the_carried_state(make):
    network, inputs = build(make), random_inputs().requires_grad_()
    weights = torch.randn(3, 11, WIDTH, dtype=torch.float64)
    (whole,) = torch.autograd.grad((network(inputs)[0] * weights).sum(), inputs)
    (pieces,) = torch.autograd.grad((read_in_pieces(network, inputs, [4, 2, 5]) * weights).sum(), inputs)
    torch.testing.assert_close(pieces, whole, rtol=1e-8, atol=1e-8)


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
def test_saved_and_loaded_weights_are_the_same_network(make):
    network, other = build(make), make(width=WIDTH).double().eval()
    assert (other(random_inputs())[0] - network(random_inputs())[0]).abs().max() > 1e-3
    other.load_state_dict(save_and_load(network.state_dict()))
    assert torch.equal(other(random_inputs())[0], network(random_inputs())[0])


@pytest.mark.numeric
@every_network
def test_a_copy_computes_the_same_and_learns_alone(make):
    network = build(make)
    expected = network(random_inputs())[0]
    other = copy.deepcopy(network)
    assert torch.equal(other(random_inputs())[0], expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    assert (other(random_inputs())[0] - expected).abs().max() > 1e-3
    assert torch.equal(network(random_inputs())[0], expected)


@pytest.mark.numeric
@every_network
def test_dropout_acts_in_training_alone(make):
    network, plain, inputs = build(make, dropout=0.5), build(make), random_inputs()
    assert torch.equal(network(inputs)[0], plain(inputs)[0])
    assert torch.equal(network(inputs)[0], network(inputs)[0])
    network.train()
    assert (network(inputs)[0] - network(inputs)[0]).abs().max() > 1e-3


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


WINDOW = 24
every_window_network = pytest.mark.parametrize("make", exported_networks(causal=False), ids=lambda make: make.__name__)


def random_windows() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(5, WINDOW, dtype=torch.float64)


@every_window_network
def test_a_window_gives_the_features_that_it_says(make):
    torch.manual_seed(1)
    network = make(context=WINDOW).double().eval()
    assert network(random_windows()).shape == (5, network.features)


@pytest.mark.numeric
@every_window_network
def test_windows_do_not_see_each_other_even_in_training(make):
    torch.manual_seed(1)
    network, windows = make(context=WINDOW).double().train(), random_windows()
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    for layer in (part for part in network.modules() if isinstance(part, SelfAttention)):
        layer.dropout = 0.0
    together = network(windows)
    for row in range(5):
        assert_equal_to_rounding(network(windows[row : row + 1])[0], together[row])


@every_window_network
def test_every_step_of_a_window_and_every_parameter_counts(make):
    torch.manual_seed(1)
    network, windows = make(context=WINDOW).double().eval(), random_windows().requires_grad_()
    network(windows).pow(3).sum().backward()
    assert windows.grad is not None
    assert windows.grad.abs().min() > 0
    assert [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()] == []


@pytest.mark.learns
@every_window_network
def test_it_overfits_the_horizons_of_one_batch(make, seed, record_property):
    torch.manual_seed(seed)
    network, windows = make(context=WINDOW).eval(), random_windows().float()  # without dropout
    head, wanted = nn.Linear(network.features, 6), torch.randn(5, 6)
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-2)
    steps, loss = 0, torch.tensor(torch.inf)
    while loss > 0.01 and steps < 500:  # a constant costs 1; ten seeds: at most 39 ± 2.1 steps
        steps += 1
        optimizer.zero_grad()
        loss = (head(network(windows)) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    record_property("steps", steps)
    assert loss <= 0.01


@pytest.mark.numeric
@every_window_network
def test_saved_and_loaded_weights_are_the_same_window_network(make):
    network, other = (make(context=WINDOW).double().eval() for _ in range(2))
    other.load_state_dict(save_and_load(network.state_dict()))
    assert torch.equal(other(random_windows()), network(random_windows()))
