"""Without gradients, every network grows its state in place, and generates what it computes from the whole input."""

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline import state as states
from pipeline.generation.beam import Beam
from pipeline.generation.limits import Limits
from pipeline.models.conv import ConvNet
from pipeline.models.transformer import Transformer
from tests.unit.models.networks import (
    ALL,
    WIDTH,
    assert_equal_to_rounding,
    build,
    every_network,
    random_inputs,
    read_in_pieces,
    save_and_load,
)

POSITIONS = 23
GROWING_IN_PLACE = {
    "all positions": lambda: Transformer(width=WIDTH),
    "a window": lambda: Transformer(width=WIDTH, window=41),
    "convolutions": lambda: ConvNet(width=WIDTH, depth=6),
}


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch):
    """Buffers are renewed several times within a test."""
    monkeypatch.setattr(states, "LEAST_FREE", 3)


def in_steps(network, inputs: Tensor, state: states.State = None) -> tuple[Tensor, states.State]:
    outputs = []
    for position in inputs.split(1, 1):
        output, state = network(position, state)
        outputs.append(output)
    return torch.cat(outputs, 1), state


@pytest.mark.numeric
@every_network
@pytest.mark.parametrize("prompt", [0, 1, 9])
@torch.no_grad()
def test_steps_equal_the_whole_at_every_position(make, prompt):
    network, inputs = build(make), random_inputs(positions=POSITIONS)
    state = network(inputs[:, :prompt])[1] if prompt else None
    assert_equal_to_rounding(in_steps(network, inputs[:, prompt:], state)[0], network(inputs)[0][:, prompt:])


@pytest.mark.numeric
@every_network
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_steps_in_place_equal_steps_with_copies_in_every_bit(make, dtype):
    network, inputs = build(make, dtype), random_inputs(positions=POSITIONS, dtype=dtype)
    with torch.no_grad():
        outputs, _ = in_steps(network, inputs)
        copied = read_in_pieces(network, inputs, [1] * POSITIONS, lambda state: states.map_state(torch.clone, state))
    assert torch.equal(outputs, copied)


@pytest.mark.numeric
@every_network
@torch.no_grad()
def test_a_state_can_be_continued_more_than_once(make):
    network, inputs = build(make), random_inputs(positions=POSITIONS)
    other = torch.cat([inputs[:, :12], random_inputs(positions=POSITIONS - 12) + 1], 1)
    _, middle = in_steps(network, inputs[:, :12])
    before = pytree.tree_map(torch.clone, middle)
    first, _ = in_steps(network, inputs[:, 12:15], middle)
    for continued in (other, inputs):
        outputs, _ = in_steps(network, continued[:, 12:], middle)
        assert_equal_to_rounding(outputs, network(continued)[0][:, 12:])
    assert_equal_to_rounding(first, network(inputs)[0][:, 12:15])
    pytree.tree_map(assert_equal_to_rounding, middle, before)


@pytest.mark.numeric
@every_network
@pytest.mark.parametrize(
    "between",
    [
        lambda state: states.concatenate(states.split(state, [1, 2])),
        lambda state: states.select(states.select(state, torch.tensor([2, 0, 1, 1])), torch.tensor([1, 2, 0])),
        save_and_load,
    ],
    ids=["split and concatenated", "permuted and back", "saved and loaded"],
)
@torch.no_grad()
def test_a_state_that_grows_in_place_survives(make, between):
    network, inputs = build(make), random_inputs()
    assert_equal_to_rounding(read_in_pieces(network, inputs, [3] + [1] * 8, between), network(inputs)[0])


@pytest.mark.numeric
@every_network
@torch.no_grad()
def test_rows_with_fewer_positions_grow_in_place(make):
    network, inputs = build(make), random_inputs(positions=POSITIONS)
    _, state = in_steps(network, inputs[:, :8])
    keep = torch.tensor([True, False, True])
    state = states.map_state(lambda leaf: leaf * keep.view(-1, *[1] * (leaf.dim() - 1)).to(leaf.dtype), state)
    outputs, _ = in_steps(network, inputs[:, 8:], state)
    assert_equal_to_rounding(outputs[keep], network(inputs)[0][keep, 8:])
    assert_equal_to_rounding(outputs[1], network(inputs[:, 8:])[0][1])


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["Transformer", "Transformer with a window", "ConvNet of kernel 3", "LSTM"])
def test_a_beam_over_growing_states_equals_one_that_computes_every_text_anew(name):
    network = build(ALL[name])
    torch.manual_seed(4)
    embedding = torch.randn(7, WIDTH, dtype=torch.float64)

    def stepping(tokens: Tensor, state: states.State) -> tuple[Tensor, states.State]:
        outputs, state = network(embedding[tokens], state)
        return outputs @ embedding.T, state

    def anew(tokens: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        tokens = tokens if before is None else torch.cat([before, tokens], 1)
        return network(embedding[tokens])[0] @ embedding.T, tokens

    prompts, limits = [[1, 2, 3], [4]], Limits(20, eos=0)
    found, expected = (Beam(3).search(model, prompts, limits) for model in (stepping, anew))
    assert [[one.tokens for one in row] for row in found] == [[one.tokens for one in row] for row in expected]
    assert [one.score for one in found[0]] == pytest.approx([one.score for one in expected[0]])


class Copies(TorchDispatchMode):
    """Counts the new tensors with at least as many elements as a state of `least` elements."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.found = least, []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        outputs = function(*arguments, **(options or {}))
        is_view = any(each.alias_info is not None for each in function._schema.returns)
        for output in () if is_view else pytree.tree_leaves(outputs):
            if isinstance(output, Tensor) and output.numel() >= self.least:
                self.found.append(str(function))
        return outputs


@pytest.mark.parametrize("reordered", [False, True])
@pytest.mark.parametrize("make", GROWING_IN_PLACE.values(), ids=GROWING_IN_PLACE)
def test_fifty_steps_copy_no_state(make, reordered, monkeypatch):
    monkeypatch.setattr(states, "LEAST_FREE", 64)
    network, inputs = make().eval(), random_inputs(1, 91, torch.float32)
    with torch.no_grad():
        state = in_steps(network, inputs[:, 40:41], network(inputs[:, :40])[1])[1]
        state = states.select(state, torch.tensor([0])) if reordered else state
        with Copies(8 * WIDTH) as copies:  # fewer positions than the state of the largest layer has
            for position in inputs[:, 41:].split(1, 1):
                state = network(position, state)[1]
    with Copies(8 * WIDTH) as with_gradients:
        network(inputs[:, :1], state)
    assert copies.found == []
    assert with_gradients.found != []
