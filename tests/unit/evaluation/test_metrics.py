"""A metric of two processes is the metric of all their predictions."""

import math
from typing import Any

import pytest
import torch

from pipeline.evaluation.metrics import Accuracy, Confusion, Returns, TokenLoss, bits_per_byte, perplexity


def counted(metric: Any, *batches: tuple[Any, ...]) -> Any:
    for batch in batches:
        metric.update(*batch)
    return metric


def test_the_loss_is_the_sum_of_nats_over_the_number_of_predictions() -> None:
    batches = [(torch.tensor(3.0), torch.tensor(2)), (torch.tensor(9.0), torch.tensor(4))]
    assert counted(TokenLoss(), *batches).compute() == 2.0
    metric = counted(TokenLoss(), batches[0])
    metric.merge_state(counted(TokenLoss(), batches[1]))
    assert metric.compute() == 2.0
    assert metric(*batches[1]) == 2.25  # the value of a batch alone
    assert metric.compute() == 2.1


def test_a_sum_of_nats_does_not_lose_small_addends() -> None:
    metric = counted(TokenLoss(), (torch.tensor(2.0**30), torch.tensor(1)), (torch.tensor(1.0), torch.tensor(0)))
    assert metric.compute() == 2.0**30 + 1
    assert (metric.nats.dtype, metric.predictions.dtype) == (torch.float64, torch.int64)


@pytest.mark.numeric
def test_accuracy_is_the_fraction_of_right_predictions() -> None:
    batches = [(torch.tensor(1), torch.tensor(2)), (torch.tensor(4), torch.tensor(6))]
    assert counted(Accuracy(), *batches).compute() == 0.625
    metric = counted(Accuracy(), batches[0])
    metric.merge_state(counted(Accuracy(), batches[1]))
    assert metric.compute() == 0.625
    metric.reset()
    assert counted(metric, batches[1]).compute() == pytest.approx(2 / 3)


def test_counts_of_right_predictions_are_exact_above_the_range_of_float32() -> None:
    metric = counted(Accuracy(), (torch.tensor(2**24), torch.tensor(2**24)), (torch.tensor(1), torch.tensor(1)))
    assert metric.right == 2**24 + 1
    assert metric.right.dtype == metric.predictions.dtype == torch.int64


def test_returns_are_averaged_over_episodes_not_over_batches() -> None:
    batches = [([1.0, 2.0, 3.0],), ([10.0],)]
    assert counted(Returns(), *batches).compute() == 4.0
    metric = counted(Returns(), batches[0])
    metric.merge_state(counted(Returns(), batches[1]))
    assert metric.compute() == 4.0
    assert metric.rewards.dtype == torch.float64
    assert metric.episodes.dtype == torch.int64


def test_rows_of_confusions_are_labels_and_columns_are_predictions() -> None:
    found, labels = torch.tensor([0, 2, 2, 1, 1]), torch.tensor([0, 1, 1, 2, -1])
    expected = [[1, 0, 0], [0, 0, 2], [0, 1, 0]]
    assert counted(Confusion(3), (found, labels)).compute().tolist() == expected
    assert counted(Confusion(3), (found[:2], labels[:2]), (found[2:], labels[2:])).compute().tolist() == expected
    metric = counted(Confusion(3), (found[:2], labels[:2]))
    metric.merge_state(counted(Confusion(3), (found[2:], labels[2:])))
    assert metric.compute().tolist() == expected
    assert metric.counts.dtype == torch.int64


@pytest.mark.parametrize("metric", [TokenLoss, Accuracy, Returns, Confusion])
def test_a_batch_is_counted_once(metric: Any) -> None:
    """torchmetrics calls `update` twice for the value of a batch unless this is False."""
    assert metric.full_state_update is False


@pytest.mark.numeric
def test_perplexity_is_the_exponential_or_infinite() -> None:
    assert perplexity(math.log(80.0)) == pytest.approx(80.0)
    assert math.isfinite(perplexity(699.9))
    assert perplexity(700.0) == math.inf
    assert perplexity(1000.0) == math.inf


@pytest.mark.numeric
def test_bits_per_byte_are_the_bits_of_all_tokens_over_all_bytes() -> None:
    nats = [0.5, 1.5, 2.0]
    bits = sum(-math.log2(math.exp(-each)) for each in nats)
    assert bits_per_byte(sum(nats) / 3, tokens=3, size=7) == pytest.approx(bits / 7)
