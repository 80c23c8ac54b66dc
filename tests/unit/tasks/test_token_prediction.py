"""Embeddings, smoothed losses, and what an evaluation logs."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.callbacks.previews.samples import Samples
from pipeline.callbacks.train_metrics import Monitor
from pipeline.data.batch import IGNORE
from pipeline.optim import AdamW, Plateau
from pipeline.tasks.token_prediction import TokenEmbedding, TokenHead, TokenPrediction


def task(width: int = 4, vocab_size: int = 6, schedule: Any = None, **head: Any) -> TokenPrediction:
    torch.manual_seed(0)
    return TokenPrediction(width, vocab_size, TokenHead(**head), AdamW, schedule)


@pytest.mark.numeric
def test_rows_of_the_embedding_have_length_one_and_enter_in_unit_variance() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(2_000, 64)
    assert embedding.weight.norm(dim=1).mean().item() == pytest.approx(1.0, abs=0.01)
    assert embedding.weight.var().item() == pytest.approx(1 / 64, rel=0.02)
    found = embedding(torch.tensor([[3, 5]]))
    torch.testing.assert_close(found, 8 * embedding.weight[None, [3, 5]])


@pytest.mark.numeric
def test_word_dropout_drops_whole_tokens_in_training_alone() -> None:
    torch.manual_seed(0)
    embedding, tokens = TokenEmbedding(4_000, 4, word_dropout=0.25), torch.arange(4_000)[None]
    plain = 2 * embedding.weight[None]
    found = embedding(tokens)
    dropped = (found == 0).all(-1)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(found[~dropped], plain[~dropped] / 0.75)
    again = embedding(torch.tensor([[7] * 50]))
    assert torch.equal(again, again[:, :1].expand_as(again))  # a token is dropped everywhere or nowhere
    torch.testing.assert_close(embedding.eval()(tokens), plain)


@pytest.mark.numeric
def test_no_word_is_dropped_by_default() -> None:
    embedding = TokenEmbedding(500, 4)
    torch.testing.assert_close(embedding(torch.arange(500)[None]), 2 * embedding.weight[None])
    assert task(word_dropout=0.3).embedding.word_dropout == 0.3


@pytest.mark.numeric
def test_the_head_is_plain_by_default() -> None:
    assert TokenHead() == TokenHead(True, 0.0, 0.0, 0.0, 0.0)
    assert torch.equal(task().output.bias, torch.zeros(6))
    model = task(tied=False)
    assert model.output.weight is not model.embedding.weight
    assert (model.vocab_size, model.output.weight.shape) == (6, (6, 4))


@pytest.mark.numeric
def test_label_smoothing_spreads_probability_over_all_tokens_and_is_not_logged() -> None:
    model = task(label_smoothing=0.1)
    outputs, targets = torch.randn(2, 3, 4), torch.tensor([[1, 5, IGNORE], [0, 2, 3]])
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORE, label_smoothing=0.1, reduction="sum")
    logits = model.output(outputs).flatten(0, 1).detach()
    expected = criterion(logits, targets.flatten())
    torch.testing.assert_close(model.training_loss(outputs, targets).detach(), expected)
    plain = nn.CrossEntropyLoss(ignore_index=IGNORE, reduction="sum")(logits, targets.flatten())
    assert float(model.seen.nats) == pytest.approx(float(plain))
    assert model.seen.predictions == 5
    torch.testing.assert_close(task().training_loss(outputs, targets).detach(), plain)


@pytest.mark.numeric
@pytest.mark.parametrize("penalty", ["ar_weight", "tar_weight"])
def test_a_penalty_alone_is_added(penalty: str) -> None:
    model = task(**{penalty: 0.5})
    outputs, targets = torch.tensor([[[1.0] * 4, [3.0] * 4, [9.0] * 4]]), torch.tensor([[1, 2, IGNORE]])
    expected = 0.5 * (1 + 9 if penalty == "ar_weight" else 4)
    added = model.training_loss(outputs, targets) - task().training_loss(outputs, targets)
    assert added.item() == pytest.approx(expected, rel=1e-5)


class Trainer:
    """A stub of Lightning's trainer in an evaluation."""

    def __init__(self, sanity_checking: bool = False) -> None:
        self.sanity_checking, self.callbacks = sanity_checking, [Monitor()]
        splits = {"validation": SimpleNamespace(tokens=10, bytes=40), "test": SimpleNamespace(tokens=10, bytes=20)}
        self.datamodule = SimpleNamespace(split=splits.__getitem__, test_split="test")


def evaluated(model: TokenPrediction, monkeypatch: pytest.MonkeyPatch, trainer: Any) -> list[tuple[Any, Any]]:
    """Give the task an evaluation of 2 nats per token, and return the list of what it logs afterwards."""
    logged: list[tuple[Any, Any]] = []
    monkeypatch.setattr(TokenPrediction, "trainer", trainer)
    monkeypatch.setattr(TokenPrediction, "log_dict", lambda self, values, **options: logged.append((values, options)))
    model.held_out.update(torch.tensor(6.0), torch.tensor(3))
    return logged


@pytest.mark.numeric
@pytest.mark.parametrize(("prefix", "size"), [("val", 40), ("test", 20)])
def test_an_evaluation_logs_loss_perplexity_and_bits_per_byte(
    prefix: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = task()
    logged = evaluated(model, monkeypatch, Trainer())
    model.on_validation_epoch_end() if prefix == "val" else model.on_test_epoch_end()
    [(values, options)] = logged
    expected = {"loss": 2.0, "perplexity": math.exp(2.0), "bits_per_byte": 2 / math.log(2) * 10 / size}
    assert values == pytest.approx({f"{prefix}/{name}": value for name, value in expected.items()})
    assert options == {"logger": False}
    assert model.held_out.predictions == 0  # the next evaluation starts from zero


@pytest.mark.parametrize(("sanity_checking", "best"), [(False, 2.0), (True, math.inf)])
def test_the_schedule_gets_the_loss_of_a_validation(
    sanity_checking: bool, best: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Plateau()
    model = task(schedule=schedule)
    evaluated(model, monkeypatch, Trainer(sanity_checking))
    model.on_validation_epoch_end()
    assert schedule.best == best


@pytest.mark.numeric
def test_held_out_batches_are_counted_without_smoothing_and_penalties() -> None:
    model = task(label_smoothing=0.1, ar_weight=1.0)
    outputs, targets = torch.randn(2, 3, 4), torch.tensor([[1, 5, IGNORE], [0, IGNORE, 3]])
    for row in range(2):
        model.count_held_out(outputs[row : row + 1], targets[row : row + 1])
    log_probabilities = model.output(outputs).log_softmax(-1)
    places = [(0, 0, 1), (0, 1, 5), (1, 0, 0), (1, 2, 3)]
    expected = -sum(float(log_probabilities[place]) for place in places) / 4
    assert float(model.held_out.compute()) == pytest.approx(expected, rel=1e-5)
    assert model.held_out.predictions == 4


def test_samples_are_decoded_with_the_tokenizer_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(Samples, "__init__", lambda self, *arguments: given.append(arguments))
    [preview] = task().preview_callbacks(Path("runs/one"))
    assert isinstance(preview, Samples)
    assert given == [(Path("runs/one/tokenizer.json"),)]
