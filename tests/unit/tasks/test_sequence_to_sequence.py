"""Sequence-to-sequence models learn to reverse a source, independent of the batch and of the decoding method."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pipeline.data.batch import IGNORE
from pipeline.data.pairs import PairsDataModule
from pipeline.evaluation.plots.figure import legible
from pipeline.generation.beam import Beam
from pipeline.generation.sampling import Greedy, Limits, generate
from pipeline.generation.text_stream import written
from pipeline.models.assemblies.translators import AttentionTranslator, LSTMTranslator, TransformerTranslator
from pipeline.tasks.sequence_to_sequence import SequenceToSequence
from pipeline.tasks.token_prediction import TokenHead

EOS, VOCAB = 0, 9
MODELS = [LSTMTranslator, AttentionTranslator, TransformerTranslator]
every_model = pytest.mark.parametrize("model_class", MODELS)


def build(model_class: type[SequenceToSequence], seed: int = 1, **options: object) -> SequenceToSequence:
    torch.manual_seed(seed)
    return model_class(vocab_size=VOCAB, source_vocab_size=VOCAB, width=32, depth=1, **options)


def reversal(rows: int, length: int, seed: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Sources of random tokens, and their reversals as inputs and targets."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (rows, 1), generator=draw)
    tokens = torch.randint(1, VOCAB, (rows, length + 1), generator=draw)
    place = torch.arange(length + 1)
    keep = place <= lengths
    tokens = torch.where(place < lengths, tokens, EOS)
    back = tokens.gather(1, (lengths - 1 - place).clamp(min=0))
    targets = torch.where(place < lengths, back, torch.where(place == lengths, EOS, IGNORE))
    inputs = torch.where(place <= lengths, targets, EOS).roll(1, 1)
    inputs[:, 0] = EOS
    return (tokens, keep), inputs, targets


@pytest.mark.learns
@every_model
def test_it_learns_to_reverse_and_all_decoding_methods_agree(
    model_class: type[SequenceToSequence], seed: int, record_property: Callable[[str, float], None]
) -> None:
    model = build(model_class, seed, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(300):
        source, inputs, targets = reversal(32, 3, 1000 * seed + step)
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 300)
        outputs, _ = model.decoder(model.embedding(inputs), model.begin(source))
        loss = model.training_loss(outputs, targets) / (targets != IGNORE).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source, inputs, targets = reversal(40, 3, 1_000_000)
    expected = [row[row > 0].tolist() for row in targets]
    model.eval()
    found = {}
    for name, choice in (("greedy", Greedy()), ("beam of 1", Beam(1)), ("beam", Beam(3))):
        with torch.no_grad():
            start = model.begin(source)
        texts = generate(model, [[EOS]] * 40, choice, Limits(6, eos=EOS), start=start)
        found[name] = [best[:-1] if best[-1] == EOS else best for best, *_ in texts]
    assert found["greedy"] == found["beam of 1"]
    right = [text == target for text, target in zip(found["greedy"], expected, strict=True)]
    record_property("result", sum(right))
    assert sum(right) >= 32  # of 40; ten seeds: Attention 40 ± 0, Transformer 39.8 ± 0.4, LSTM 38.8 ± 1.3
    for row in range(5):  # alone as in a batch
        with torch.no_grad():
            start = model.begin(tuple(part[row : row + 1] for part in source))
        [[text]] = generate(model, [[EOS]], Beam(3), Limits(6, eos=EOS), start=start)
        assert (text[:-1] if text[-1] == EOS else text) == found["beam"][row]


@pytest.mark.numeric
@every_model
def test_a_padding_row_changes_nothing(model_class: type[SequenceToSequence]) -> None:
    model = build(model_class, dropout=0.0).double()
    source, inputs, targets = reversal(3, 4, 1)
    filled = tuple(torch.cat([part, part[:1]]) for part in source)
    filled[0][-1], filled[1][-1] = EOS, torch.arange(5) < 1
    losses = []
    for given, read, goal in (
        (source, inputs, targets),
        (filled, torch.cat([inputs, inputs[:1] * 0]), torch.cat([targets, targets[:1] * 0 + IGNORE])),
    ):
        outputs, _ = model.decoder(model.embedding(read), model.begin(given))
        losses.append(model.training_loss(outputs, goal))
    grads = [torch.autograd.grad(loss, [*model.parameters()]) for loss in losses]
    torch.testing.assert_close(losses[0], losses[1])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.numeric
def test_label_smoothing_is_the_cross_entropy_with_the_spread_target_and_is_not_counted() -> None:
    plain, smooth = (build(AttentionTranslator, head=TokenHead(label_smoothing=share)) for share in (0.0, 0.1))
    source, inputs, targets = reversal(5, 4, 1)
    results = []
    for model in (plain, smooth):
        model.eval()
        outputs, _ = model.decoder(model.embedding(inputs), model.begin(source))
        results.append((model.training_loss(outputs, targets), model.seen.compute(), model.output(outputs)))
    logits = results[0][2].flatten(0, 1).log_softmax(-1)
    kept = targets.flatten() != IGNORE
    expected = torch.full_like(logits, 0.1 / VOCAB).scatter_add_(
        1, targets.flatten().clamp(min=0)[:, None], torch.full((len(logits), 1), 0.9)
    )
    torch.testing.assert_close(results[1][0], -(expected * logits)[kept].sum())
    assert results[0][1] == results[1][1]
    assert results[0][0] < results[1][0]


@pytest.mark.numeric
def test_sampled_inputs_are_the_models_own_predictions() -> None:
    model = build(AttentionTranslator, scheduled_sampling=1.0, dropout=0.0).eval()
    source, inputs, targets = reversal(5, 4, 1)
    state = model.begin(source)
    from pipeline.data.batch import PairBatch

    batch = PairBatch(source, inputs, targets, torch.arange(5), 10, 0, 0, 0)
    own = model._inputs(batch, state)
    guesses = model(inputs, state)[0].argmax(-1)
    assert (own[:, 0] == EOS).all()
    assert torch.equal(own[:, 1:], guesses[:, :-1])
    model.scheduled_sampling = 0.0
    assert model._inputs(batch, state) is inputs


@pytest.mark.parametrize("model_class", MODELS)
def test_a_validation_shows_the_attention_of_its_texts(
    model_class: type[SequenceToSequence], tiny_pairs_dataset: Path
) -> None:
    data = PairsDataModule(tiny_pairs_dataset)
    torch.manual_seed(1)
    model = model_class(**data.facts.arguments_of(model_class), width=16, depth=1).eval()
    trainer = SimpleNamespace(datamodule=data)
    model.trainer = trainer  # type: ignore[assignment]
    rows = model.examples(data.tokenizer, 2, 6)
    split = data.dataset.splits["validation"]
    assert [row["prompt"] for row in rows] == [split.value("text", 0), split.value("text", 1)]
    if model_class is LSTMTranslator:  # it has no attention
        assert all(row.keys() == {"prompt", "text"} for row in rows)
        return
    texts = model.write(data.show("validation", 2)[0], model.evaluation.choice, 6)
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        [axes] = row["picture"].axes
        words = [legible(word) for word in written(data.tokenizer, [*text, data.dataset.target.eos])]
        assert [label.get_text() for label in axes.get_yticklabels()] == words
        assert len(axes.get_xticklabels()) == len(split.value("source", number)) + 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scheduled_sampling": 1.5}, "scheduled_sampling=1.5"), ({"width": 30}, "heads=4 must divide width=30")],
)
def test_invalid_arguments_raise_an_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerTranslator(**{"vocab_size": 5, "source_vocab_size": 5, **options})  # type: ignore[arg-type]
