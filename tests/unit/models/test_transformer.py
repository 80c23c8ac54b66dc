"""Attention is the softmax formula with rotary positions, and a window or a cache is exact."""

import math

import pytest
import torch
from torch import Tensor

from pipeline import state as states
from pipeline.models.encoders.text import TransformerStack
from pipeline.models.layers.attention import SelfAttention, rotate, rotation
from pipeline.models.layers.feedforward import GELU, SwiGLU
from pipeline.models.transformer import Transformer
from pipeline.training.config import CONFIGS, parse_config


def turned(vector: Tensor, position: int) -> Tensor:
    """Rotary positions as a product of complex numbers."""
    half = len(vector) // 2
    angles = torch.tensor([position / 10000 ** (pair / half) for pair in range(half)], dtype=torch.float64)
    product = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([product.real, product.imag])


def attention_by_the_formula(layer: SelfAttention, inputs: Tensor, window: int) -> Tensor:
    """One sequence (T, D), one head and one position at a time."""
    size = inputs.shape[1] // layer.heads
    query, key, value = ((inputs @ part.T).split(size, 1) for part in layer.project.weight.chunk(3))
    heads = []
    for q, k, v in zip(query, key, value, strict=True):
        rows = []
        for here in range(len(inputs)):
            seen = range(max(0, here - window + 1), here + 1)
            match = [turned(q[here], here) @ turned(k[there], there) / math.sqrt(size) for there in seen]
            rows.append(torch.stack(match).softmax(0) @ v[list(seen)])
        heads.append(torch.stack(rows))
    return torch.cat(heads, 1) @ layer.output.weight.T


@pytest.mark.numeric
@pytest.mark.parametrize("window", [None, 1, 3, 20])
def test_the_block_is_attention_by_the_formula_then_the_positionwise_layer(window):
    torch.manual_seed(0)
    network = Transformer(width=12, depth=1, heads=3, window=window).double().eval()
    inputs = torch.randn(2, 9, 12, dtype=torch.float64)
    (block,) = network.layers
    for row, outputs in zip(inputs, network(inputs)[0], strict=True):
        stream = row + attention_by_the_formula(block.attention, block.attention_norm(row), window or 9)
        gate, up, down = (getattr(block.feedforward, name).weight for name in ("gate", "up", "down"))
        hidden = block.feedforward_norm(stream)
        gated = hidden @ gate.T
        stream = stream + (gated * torch.sigmoid(gated) * (hidden @ up.T)) @ down.T
        torch.testing.assert_close(outputs, network.norm(stream), rtol=1e-10, atol=1e-10)


@pytest.mark.numeric
def test_a_bidirectional_stack_without_a_mask_attends_to_all_positions():
    torch.manual_seed(0)
    stack = TransformerStack(12, 2, 3, None, 0.0).double().eval()
    inputs = torch.randn(2, 9, 12, dtype=torch.float64, requires_grad=True)
    outputs = stack(inputs, None)
    torch.testing.assert_close(outputs, stack(inputs, torch.ones(2, 9, dtype=torch.bool)), rtol=1e-10, atol=1e-10)
    outputs[0, 0].square().sum().backward()
    assert inputs.grad[0].abs().sum(1).ne(0).all()
    weights = stack.layers[0].attention.weights(inputs.detach(), None, None, None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 9))
    assert weights.gt(0).all()


@pytest.mark.numeric
def test_rotary_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def match(at: int, other: int) -> float:
        turns = [rotation(torch.tensor([[each]]), 8, torch.float64) for each in (at, other)]
        return (rotate(query, turns[0]) * rotate(key, turns[1])).sum().item()

    assert match(7, 4) == pytest.approx(match(103, 100), abs=1e-12)
    assert match(7, 4) != pytest.approx(match(7, 5), abs=1e-3)


@pytest.mark.parametrize("window", [2, 4])
def test_a_window_adds_its_positions_to_the_receptive_field_per_layer(window):
    torch.manual_seed(0)
    depth = 2
    network = Transformer(width=8, depth=depth, window=window).double()
    inputs = torch.randn(1, 20, 8, dtype=torch.float64, requires_grad=True)
    network(inputs)[0][0, 15].square().sum().backward()
    seen = inputs.grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert seen == list(range(15 - depth * (window - 1), 16))


@pytest.mark.numeric
def test_a_window_as_long_as_the_sequence_changes_nothing():
    torch.manual_seed(0)
    plain, window = Transformer(width=8).double(), Transformer(width=8, window=9).double()
    window.load_state_dict(plain.state_dict())
    inputs = torch.randn(2, 9, 8, dtype=torch.float64)
    assert torch.equal(plain(inputs)[0], window(inputs)[0])


def test_positions_continue_beyond_the_window():
    network = Transformer(width=8, window=3)
    _, state = network(torch.randn(2, 5, 8))
    (count, caches) = network(torch.randn(2, 4, 8), state)[1]
    assert count.tolist() == [9, 9]
    assert {tuple(part.shape) for cache in caches for part in cache} == {(2, 4, 2, 2)}


def test_learned_positions_matter_and_end_with_the_last():
    torch.manual_seed(0)
    network = Transformer(width=8, positions=6).eval()
    same = torch.randn(1, 1, 8).expand(1, 6, 8)
    outputs, state = network(same)
    assert (outputs[0, 0] - outputs[0, 1]).abs().max() > 1e-4
    with pytest.raises(ValueError, match="positions=6: expected at least 7"):
        network(torch.randn(1, 7, 8))
    with pytest.raises(ValueError, match="positions=6: expected at least 7"):
        network(torch.randn(1, 1, 8), state)


def test_an_unbounded_cache_is_not_carried_in_training():
    network = Transformer(width=8).train()
    _, state = network(torch.randn(1, 4, 8))
    with pytest.raises(ValueError, match="window"):
        network(torch.randn(1, 4, 8), state)
    network.eval()(torch.randn(1, 4, 8), state)


def test_a_window_lets_training_carry_the_state():
    network = Transformer(width=8, window=3).train()
    _, state = network(torch.randn(1, 4, 8))
    outputs, _ = network(torch.randn(1, 4, 8), states.detach(state))
    outputs.sum().backward()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "heads=3 must divide width=16"),
        ({"heads": 16}, "even"),
        ({"window": 0}, "window=0"),
        ({"depth": 0}, "depth=0"),
    ],
    ids=str,
)
def test_invalid_arguments_raise_an_error(options, words):
    with pytest.raises(ValueError, match=words):
        Transformer(width=16, **options)


def test_a_gated_layer_has_the_parameters_of_an_ungated_one():
    gated = sum(each.numel() for each in SwiGLU(96).parameters())
    plain = sum(each.numel() for each in GELU(96).parameters() if each.dim() > 1)
    assert gated == plain == 8 * 96 * 96


def test_a_config_can_request_learned_positions(tiny_text_dataset):
    arguments = ["--data.init_args.dataset", str(tiny_text_dataset), "--model.init_args.positions", "70"]
    cli = parse_config(["--config", str(CONFIGS / "text/transformer.yaml"), *arguments])
    task = cli.build()[0]  # values that the data sets have other names
    assert task.network.positions.num_embeddings == task.build().network.positions.num_embeddings == 70
