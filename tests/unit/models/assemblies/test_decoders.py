"""Decoders keep the network's contract with a memory in their state; encoders ignore padding.

Legend: B sequences, S positions of the memory, T positions, D features.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pipeline import state as states
from pipeline.models.assemblies.decoders import AttentionDecoder, VectorDecoder
from pipeline.models.conv import ConvNet
from pipeline.models.encoders.text import BidirectionalEncoder, TransformerEncoder, reverse
from pipeline.models.gru import GRU
from pipeline.models.layers.cross_attention import AdditiveAttention, Memory, MultiplicativeAttention
from pipeline.models.linear_recurrence import LinearRecurrence
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer

WIDTH, SOURCE_VOCAB = 16, 13
DECODERS: dict[str, Callable[[], nn.Module]] = {
    "vector, LSTM": lambda: VectorDecoder(LSTM(width=WIDTH)),
    "vector, ConvNet": lambda: VectorDecoder(ConvNet(width=WIDTH, depth=3)),
    "additive, GRU": lambda: AttentionDecoder(GRU(width=WIDTH)),
    "multiplicative, LSTM": lambda: AttentionDecoder(LSTM(width=WIDTH), MultiplicativeAttention, input_feeding=False),
    "additive, LinearRecurrence": lambda: AttentionDecoder(LinearRecurrence(width=WIDTH, depth=2), AdditiveAttention),
    "Transformer": lambda: Transformer(width=WIDTH, decodes=True),
    "Transformer with a window": lambda: Transformer(width=WIDTH, window=3, decodes=True),
}
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"both ways, {network.__name__}": partial(BidirectionalEncoder, SOURCE_VOCAB, network, WIDTH, 2)
        for network in (RNN, LSTM, GRU)
    },
    "both ways, ConvNet": partial(BidirectionalEncoder, SOURCE_VOCAB, ConvNet, WIDTH, 1, network_depth=4),
    "both ways, LinearRecurrence": partial(BidirectionalEncoder, SOURCE_VOCAB, LinearRecurrence, WIDTH, 1),
    "Transformer": partial(TransformerEncoder, SOURCE_VOCAB, WIDTH, 2),
}
every_decoder = pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS.keys())
every_encoder = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS.keys())
Make = Callable[[], nn.Module]


def build(make: Make) -> nn.Module:
    torch.manual_seed(1)
    return make().double().eval()


def memory(lengths: list[int], longest: int = 6) -> Memory:
    draw = torch.Generator().manual_seed(3)
    values = torch.randn(len(lengths), longest, WIDTH, dtype=torch.float64, generator=draw)
    keep = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Memory(values, keep, torch.randn(len(lengths), WIDTH, dtype=torch.float64, generator=draw))


def inputs(rows: int = 3, positions: int = 7) -> Tensor:
    return torch.randn(rows, positions, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.numeric
@every_decoder
def test_decoding_stepwise_and_in_pieces_equals_decoding_at_once(make: Make) -> None:
    decoder = build(make)
    whole, _ = decoder(inputs(), decoder.begin(memory([6, 3, 1])))
    for sizes in ([1] * 7, [3, 4]):
        state, pieces = decoder.begin(memory([6, 3, 1])), []
        for piece in inputs().split(sizes, 1):
            output, state = decoder(piece, state)
            pieces.append(output)
        torch.testing.assert_close(torch.cat(pieces, 1), whole)


@every_decoder
def test_no_output_depends_on_a_later_input(make: Make) -> None:
    decoder = build(make)
    read = inputs().requires_grad_()
    outputs, _ = decoder(read, decoder.begin(memory([6, 3, 1])))
    [gradient] = torch.autograd.grad(outputs[:, 3].pow(3).sum(), read)
    assert gradient[:, 4:].abs().max() == 0
    assert gradient[:, 3].abs().max() > 0


@every_decoder
def test_outputs_depend_on_kept_positions_or_the_summary_alone(make: Make) -> None:
    decoder = build(make)
    held = memory([6, 3, 1])
    held.values.requires_grad_()
    held.summary.requires_grad_()
    outputs, _ = decoder(inputs(), decoder.begin(held))
    values, summary = torch.autograd.grad(outputs.pow(3).sum(), [held.values, held.summary], allow_unused=True)
    if isinstance(decoder, VectorDecoder):
        assert values is None
        assert (summary.abs().sum(1) > 0).all()
        return
    assert ((values.abs().sum(2) > 0) == held.keep).all()


@pytest.mark.numeric
@every_decoder
def test_rows_of_a_state_can_be_selected_as_in_beam_search(make: Make) -> None:
    decoder = build(make)
    index = torch.tensor([2, 0, 0, 1])
    _, state = decoder(inputs()[:, :3], decoder.begin(memory([6, 3, 1])))
    chosen, _ = decoder(inputs()[index, 3:], states.select(state, index))
    straight, _ = decoder(inputs()[:, 3:], state)
    torch.testing.assert_close(chosen, straight[index])


@pytest.mark.numeric
@pytest.mark.parametrize("attention", [AdditiveAttention, MultiplicativeAttention])
def test_attention_is_the_formula_of_its_paper(
    attention: type[AdditiveAttention] | type[MultiplicativeAttention],
) -> None:
    torch.manual_seed(4)
    module = attention(WIDTH).double()
    held, query = memory([6, 3, 1]), inputs()
    seen, weights = module(query, module.key(held.values), held.values, held.keep)
    for row, length in enumerate([6, 3, 1]):
        for t in range(7):
            scores = []
            for s in range(length):
                key = module.key.weight @ held.values[row, s]
                if isinstance(module, AdditiveAttention):
                    inner = torch.tanh(module.query.weight @ query[row, t] + module.query.bias + key)
                    scores.append(module.score.weight[0] @ inner)
                else:
                    scores.append(query[row, t] @ key / WIDTH**0.5)
            expected = torch.stack(scores).softmax(0)
            # the softmax is computed in float32
            torch.testing.assert_close(weights[row, t, :length], expected, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(seen[row, t], expected @ held.values[row, :length], rtol=1e-5, atol=1e-6)
        assert weights[row, :, length:].abs().max().item() == 0 if length < 6 else True


@pytest.mark.numeric
@pytest.mark.parametrize("name", ["additive, GRU", "multiplicative, LSTM", "Transformer"])
def test_attention_weights_sum_to_one_over_kept_positions_and_leave_outputs_unchanged(name: str) -> None:
    decoder, held = build(DECODERS[name]), memory([6, 3, 1])
    whole, _ = decoder(inputs(), decoder.begin(held))
    state, found = decoder.begin(held), []
    for piece in inputs().split([1, 4, 2], 1):
        output, state, weights = decoder.forward_with_attention(piece, state)
        found.append((output, weights))
        assert torch.equal(decoder.memory_mask(state), held.keep)
    outputs, weights = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    torch.testing.assert_close(outputs, whole)
    torch.testing.assert_close(weights.double().sum(2), torch.ones(3, 7).double(), rtol=1e-6, atol=1e-6)
    assert weights.masked_select(~held.keep[:, None].expand_as(weights)).abs().max() == 0
    assert weights[0].std(0).min() > 0  # weights differ between positions


@pytest.mark.numeric
def test_the_attention_of_a_transformer_is_that_of_its_layers() -> None:
    """Compare the weights with attended values, where values are one-hot positions."""
    decoder, held = build(lambda: Transformer(width=WIDTH, depth=1, heads=1, decodes=True)), memory([6, 3, 1])
    cross = decoder.layers[0].cross
    read = inputs()
    key, _ = cross.remember(held.values).chunk(2, -1)
    marks = torch.eye(6, WIDTH, dtype=torch.float64).expand(3, -1, -1)
    given = torch.cat([key, marks], -1).unflatten(-1, (2, WIDTH)).transpose(1, 2)
    cross.output = nn.Identity()
    attended, _ = cross(read, given, held.keep)
    torch.testing.assert_close(cross.weights(read, given, held.keep).double(), attended[..., :6], rtol=1e-5, atol=1e-6)


@pytest.mark.numeric
@every_encoder
def test_padding_changes_nothing(make: Make) -> None:
    encoder = build(make)
    tokens = torch.randint(SOURCE_VOCAB, (3, 8), generator=torch.Generator().manual_seed(5))
    lengths = [8, 5, 1]
    keep = torch.arange(8) < torch.tensor(lengths)[:, None]
    together = encoder(tokens, keep)
    for row, length in enumerate(lengths):
        alone = encoder(tokens[row : row + 1, :length], keep[row : row + 1, :length])
        torch.testing.assert_close(together.values[row, :length], alone.values[0])
        torch.testing.assert_close(together.summary[row], alone.summary[0])


@every_encoder
def test_every_position_depends_on_every_other(make: Make) -> None:
    encoder = build(make)
    encoder.embedding.weight.requires_grad_()
    tokens = torch.arange(8)[None]
    found = encoder(tokens, torch.ones(1, 8, dtype=torch.bool))
    for part in (found.values[0, 0], found.values[0, 7], found.summary[0]):
        [gradient] = torch.autograd.grad(part.pow(3).sum(), encoder.embedding.weight, retain_graph=True)
        assert (gradient[:8].abs().sum(1) > 0).all()


@pytest.mark.numeric
def test_reversing_twice_gives_back_the_rows() -> None:
    keep = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]
    rows = torch.arange(18.0).view(3, 6, 1)
    assert reverse(rows, keep)[1, :, 0].tolist() == [9, 8, 7, 6, 10, 11]
    assert torch.equal(reverse(reverse(rows, keep), keep), rows)
