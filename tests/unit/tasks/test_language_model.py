"""The loss is that of the formula, whether documents or batches are read together or apart."""

import math
from typing import Any

import pytest
import torch

from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.models.lstm import LSTMLanguageModel
from pipeline.tasks.language_model import TokenHead


@pytest.mark.numeric
def test_the_loss_is_the_cross_entropy_of_the_formula() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(vocab_size=11, width=16).double().eval()
    tokens, targets = torch.randint(11, (2, 9)), torch.randint(11, (2, 9))
    targets[0, 5:] = IGNORE
    logits, _ = model(tokens)
    outputs, _ = model._outputs(tokens, None, None)
    expected = -sum(
        math.log(math.exp(logits[b, t, y]) / logits[b, t].exp().sum())
        for b in range(2)
        for t in range(9)
        if (y := int(targets[b, t])) != IGNORE
    )
    assert float(model._nats(outputs, targets)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.numeric
def test_penalties_are_summed_where_there_is_something_to_predict() -> None:
    torch.manual_seed(0)
    head = TokenHead(ar_weight=0.5, tar_weight=0.25)
    model = LSTMLanguageModel(vocab_size=11, width=16, head=head)
    outputs, targets = torch.randn(2, 7, 16), torch.randint(11, (2, 7))
    plain = LSTMLanguageModel(vocab_size=11, width=16)
    plain.load_state_dict(model.state_dict())
    added = 0.5 * outputs.square().mean(2).sum() + 0.25 * outputs.diff(dim=1).square().mean(2).sum()
    expected = plain.training_loss(outputs, targets) + added
    torch.testing.assert_close(model.training_loss(outputs, targets), expected)
    filled = torch.cat([torch.cat([outputs, torch.randn(2, 3, 16)], 1), torch.randn(1, 10, 16)])
    ignored = torch.full((3, 10), IGNORE)
    ignored[:2, :7] = targets
    torch.testing.assert_close(model.training_loss(filled, ignored), expected)


@pytest.mark.numeric
def test_carried_state_makes_two_batches_one_text() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(vocab_size=11, width=16).eval()
    tokens = torch.randint(11, (2, 20))
    whole, _ = model._outputs(tokens, None, None)
    carried: dict[int, Any] = {}
    halves = [
        model._read(
            TokenBatch(tokens[:, 10 * k : 10 * k + 10], tokens[:, :10], None, torch.arange(2), 20, k, 0),
            carried,
        )
        for k in range(2)
    ]
    torch.testing.assert_close(torch.cat(halves, 1), whole)
    again = model._read(TokenBatch(tokens[:, :10], tokens[:, :10], None, torch.arange(2), 20, 0, 0), carried)
    torch.testing.assert_close(again, whole[:, :10])  # an epoch begins without a state


def test_tied_weights_are_one_matrix() -> None:
    tied = LSTMLanguageModel(vocab_size=7, width=8)
    assert tied.output.weight is tied.embedding.weight
    untied = LSTMLanguageModel(vocab_size=7, width=8, head=TokenHead(tied=False))
    assert untied.output.weight is not untied.embedding.weight
