"""A neural cache mixes the distribution of its paper into that of the model, also across windows."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.errors import ConfigError
from pipeline.evaluation.neural_cache import NeuralCache
from pipeline.models.lstm import LSTMLanguageModel


def slow(cache: NeuralCache, features: Tensor, logits: Tensor, targets: Tensor) -> list[list[float]]:
    """Follow equations 2 and 3 of Grave et al. 2017 word by word, over the whole vocabulary."""
    rows = []
    for h, z, words in zip(features.tolist(), logits.tolist(), targets.tolist(), strict=True):
        losses = []
        for t, word in enumerate(words):
            exponentials = [math.exp(each) for each in z[t]]
            model = [each / sum(exponentials) for each in exponentials]
            scores = [0.0] * len(model)
            for i in range(max(0, t - cache.window), t):
                if words[i] != IGNORE:
                    scores[words[i]] += math.exp(cache.sharpness * sum(a * b for a, b in zip(h[t], h[i], strict=True)))
            total, share = sum(scores), cache.share if sum(scores) else 0.0
            mixed = [(1 - share) * p + share * s / (total or 1.0) for p, s in zip(model, scores, strict=True)]
            assert sum(mixed) == pytest.approx(1)
            losses.append(0.0 if word == IGNORE else -math.log(mixed[word]))
        rows.append(losses)
    return rows


@pytest.mark.numeric
@pytest.mark.parametrize("cache", [NeuralCache(4, 0.2, 0.7), NeuralCache(100, 0.5, 0.0), NeuralCache(1, 0.9, 2.0)])
@pytest.mark.parametrize("sizes", [[12], [5, 7], [1, 1, 10]], ids=str)
def test_losses_are_those_of_the_equations_in_any_windows(cache: NeuralCache, sizes: list[int]) -> None:
    torch.manual_seed(0)
    features, logits, targets = torch.randn(2, 12, 3), torch.randn(2, 12, 5), torch.randint(5, (2, 12))
    targets[0, 2] = targets[1, 8:] = IGNORE
    past, found = None, []
    for parts in zip(features.split(sizes, 1), logits.split(sizes, 1), targets.split(sizes, 1), strict=True):
        nats, past = cache.losses(*parts, past)
        assert past.tokens.shape[1] <= cache.window
        found.append(nats)
    expected = torch.tensor(slow(cache, features, logits, targets))
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.numeric
def test_an_evaluation_carries_the_cache_from_window_to_window_of_its_rows() -> None:
    torch.manual_seed(0)
    model = LSTMLanguageModel(vocab_size=7, width=6, depth=1).eval()
    inputs, targets = torch.randint(7, (2, 10)), torch.randint(7, (2, 10))
    model.cache = NeuralCache(6, 0.3, 1.0)
    with torch.no_grad():
        for step, part in enumerate((slice(0, 4), slice(4, 10))):
            read, predicted = inputs[:, part], targets[:, part]
            ids = torch.from_numpy(np.arange(2))
            model.validation_step(TokenBatch(read, predicted, None, ids, predicted.numel(), step, 0), step)
        features, _ = model.network(model.embedding(inputs))
        expected = slow(model.cache, features, model.output(features), targets)
    assert model.held_out.compute().item() == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("text", ["500", "500,0.1", "a,0.1,1", "0,0.1,1", "5,1.0,1", "5,0.1,-1"])
def test_invalid_settings_raise_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--cache=.*expected"):
        NeuralCache.parse(text)
    assert NeuralCache.parse("500,0.1,1.0") == NeuralCache(500, 0.1, 1.0)
