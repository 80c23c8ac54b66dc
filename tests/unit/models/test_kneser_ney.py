"""The Kneser-Ney n-gram against a slow reference from the formula, its axioms, and the published perplexity."""

import lzma
import math
import os
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.models.kneser_ney import KneserNey, discounts, measure_baseline

EOS = 0
BEGIN = "<begin>"
REAL_DATA = Path(os.environ.get("PIPELINE_DATA", Path(__file__).parents[4] / "shared/data"))


def sentences(tokens):
    cut, found = [], []
    for token in tokens:
        cut.append(token)
        if token == EOS:
            found.append(cut)
            cut = []
    return [*found, cut] if cut else found


class SlowKneserNey:
    """Chen and Goodman's formula with dictionaries, one n-gram at a time."""

    def __init__(self, tokens, vocab_size, order):
        self.vocab_size, self.order = vocab_size, order
        counts, before = Counter(), defaultdict(set)
        for sentence in sentences(tokens):
            opened = (BEGIN, *sentence)
            for last in range(1, len(opened)):
                for first in range(max(0, last - order + 1), last + 1):
                    ngram = opened[first : last + 1]
                    counts[ngram] += 1
                    if first > 0:
                        before[ngram].add(opened[first - 1])
        self.a = {
            ngram: times if len(ngram) == order or ngram[0] == BEGIN else len(before[ngram])
            for ngram, times in counts.items()
        }
        self.discount = {n: self.discounts_of(n) for n in range(1, order + 1)}

    def discounts_of(self, n):
        of = Counter(a for ngram, a in self.a.items() if len(ngram) == n)
        if 0 in (of[1], of[2], of[3], of[4]):
            return {1: 0.5, 2: 1.0, 3: 1.5}
        y = of[1] / (of[1] + 2 * of[2])
        found = {k: k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3)}
        return found if min(found.values()) > 0 else {1: 0.5, 2: 1.0, 3: 1.5}

    def probability(self, token, context):
        followers = {g: a for g, a in self.a.items() if len(g) == len(context) + 1 and g[:-1] == context}
        below = self.probability(token, context[1:]) if context else 1 / self.vocab_size
        if not followers:
            return below
        discount = self.discount[len(context) + 1]
        total = sum(followers.values())
        freed = sum(discount[min(a, 3)] for a in followers.values()) / total
        a = followers.get((*context, token), 0)
        return (a - discount[min(a, 3)] if a else 0.0) / total + freed * below

    def log_probabilities(self, tokens):
        found = []
        for sentence in sentences(tokens):
            opened = (BEGIN, *sentence)
            for last in range(1, len(opened)):
                context = opened[max(0, last - self.order + 1) : last]
                found.append(math.log(self.probability(opened[last], context)))
        return np.array(found)


def markov_corpus(length, vocab_size, seed):
    """Tokens of a random bigram source over all but the last two of the vocabulary; 0 ends a sentence."""
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.full(vocab_size - 2, 0.3), size=vocab_size)
    tokens = [EOS]
    for _ in range(length):
        tokens.append(int(generator.choice(vocab_size - 2, p=rows[tokens[-1]])))
    return np.array([*tokens[1:], EOS], dtype=np.uint16)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_every_probability_is_that_of_a_slow_reference(order):
    train, held_out = markov_corpus(500, 14, seed=1), markov_corpus(100, 14, seed=2)
    held_out[::17] = 13  # an unseen word
    fast = KneserNey.fit(train, EOS, 14, order)
    slow = SlowKneserNey(train.tolist(), 14, order)
    for tokens in (train, held_out):
        difference = fast.log_probabilities(tokens) - slow.log_probabilities(tokens.tolist())
        assert np.abs(difference).max() < 1e-12


def test_the_estimated_discounts_are_used_and_not_only_the_fallback():
    train = markov_corpus(500, 14, seed=1)
    slow = SlowKneserNey(train.tolist(), 14, 5)
    assert any(found != {1: 0.5, 2: 1.0, 3: 1.5} for found in slow.discount.values())


@pytest.mark.parametrize("context", [[], [3], [13], [3, 13], [1, 2, 3, 4, 5, 6, 7], [EOS], [2, EOS]], ids=str)
def test_the_distribution_sums_to_one_after_seen_and_unseen_contexts(context):
    model = KneserNey.fit(markov_corpus(2000, 14, seed=3), EOS, 14, 5)
    distribution = model.distribution(context)
    assert distribution.shape == (14,)
    assert abs(distribution.sum() - 1) < 1e-12
    assert (distribution > 0).all()


def test_the_distribution_holds_the_probability_of_each_token_of_a_stream():
    train, held_out = markov_corpus(800, 14, seed=4), markov_corpus(60, 14, seed=5)
    model = KneserNey.fit(train, EOS, 14, 4)
    expected = [
        math.log(model.distribution(sentence[:place])[token])
        for sentence in sentences(held_out.tolist())
        for place, token in enumerate(sentence)
    ]
    np.testing.assert_allclose(model.log_probabilities(held_out), expected, rtol=0, atol=1e-12)


def test_no_context_crosses_the_end_of_a_sentence():
    model = KneserNey.fit(markov_corpus(800, 14, seed=4), EOS, 14, 5)
    first, second = np.array([3, 4, 5, EOS]), np.array([1, 2, EOS])
    together = model.log_probabilities(np.concatenate([first, second]))
    apart = np.concatenate([model.log_probabilities(first), model.log_probabilities(second)])
    np.testing.assert_array_equal(together, apart)
    np.testing.assert_array_equal(model.distribution([7, 7, EOS]), model.distribution([]))


def test_order_one_ignores_the_context():
    model = KneserNey.fit(markov_corpus(500, 14, seed=6), EOS, 14, 1)
    np.testing.assert_array_equal(model.distribution([]), model.distribution([1, 2, 3]))


def test_unseen_words_share_the_discounted_mass():
    model = KneserNey.fit(np.array([1, 1, 1, 1, EOS]), EOS, 4, 1)  # a(1) = 4, a(eos) = 1: fallback discounts
    assert model.distribution([]) == pytest.approx([0.5 / 5 + 0.1, 2.5 / 5 + 0.1, 0.1, 0.1], abs=1e-15)


def test_discounts_are_those_of_chen_and_goodman():
    a = np.repeat([1, 2, 3, 4], [8, 4, 2, 1])
    assert discounts(a) == pytest.approx([0, 0.5, 1.25, 2.0])  # Y = 8 / (8 + 2 * 4) = 1/2


def test_undetermined_discounts_are_half_of_the_count():
    np.testing.assert_array_equal(discounts(np.array([1, 1, 2, 4])), [0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(discounts(np.repeat([1, 2, 3, 4], [9, 1, 9, 9])), [0, 0.5, 1.0, 1.5])


def test_one_long_document_without_an_end_is_counted():
    tokens = np.tile(np.array([1, 2, 3], np.uint16), 2000)
    model = KneserNey.fit(tokens, EOS, 5, 5)
    assert model.perplexity(tokens) < 1.01
    assert model.distribution([1, 2, 3, 1])[2] > 0.99


def test_perplexity_is_the_exponential_of_the_mean_loss():
    train = markov_corpus(500, 14, seed=7)
    model = KneserNey.fit(train, EOS, 14, 3)
    assert model.perplexity(train) == pytest.approx(math.exp(-model.log_probabilities(train).mean()))


def test_n_grams_are_counted_once():
    model = KneserNey.fit(np.array([1, 2, EOS, 1, 2, EOS]), EOS, 3, 2)
    assert model.ngrams == 4 + 3  # BOS 1 2 eos; BOS-1 1-2 2-eos


@pytest.mark.parametrize(
    ("tokens", "order", "message"),
    [
        ([1, EOS], 0, "order=0 must be at least 1"),
        ([], 5, "tokens is empty"),
        ([1, 4, EOS], 5, "token 4 is outside the vocabulary of 4 tokens"),
    ],
)
def test_invalid_arguments_raise_an_error(tokens, order, message):
    with pytest.raises(ValueError, match=message):
        KneserNey.fit(np.array(tokens, np.int64), EOS, 4, order)


def test_a_token_outside_the_vocabulary_raises_an_error():
    model = KneserNey.fit(np.array([1, 2, EOS]), EOS, 3)
    with pytest.raises(ValueError, match="token 3 is outside the vocabulary of 3 tokens"):
        model.distribution([3])


def split_of(tokens, size_in_bytes):
    return SimpleNamespace(tokens=len(tokens), bytes=size_in_bytes, read=lambda start, stop: tokens[start:stop])


def test_the_baseline_evaluates_every_split_but_the_training_split():
    train, held_out = markov_corpus(500, 14, seed=8), markov_corpus(99, 14, seed=9)
    splits = {"train": split_of(train, 2000), "validation": split_of(held_out, 400)}
    figures = measure_baseline(SimpleNamespace(splits=splits, target=SimpleNamespace(eos=EOS, size=14)), order=3)
    model = KneserNey.fit(train, EOS, 14, 3)
    nats = -model.log_probabilities(held_out).sum()
    assert figures["validation"] == {
        "nats": pytest.approx(nats),
        "tokens": 100,
        "perplexity": pytest.approx(math.exp(nats / 100)),
        "bits_per_byte": pytest.approx(nats / math.log(2) / 400),
    }
    assert "test" not in figures
    assert figures["ngrams"] == model.ngrams


@pytest.mark.data
def test_order_five_gives_the_published_perplexity_of_penn_treebank():
    if not (REAL_DATA / "ptb").is_dir():
        pytest.skip(f"no Penn Treebank under {REAL_DATA}; set PIPELINE_DATA")

    def words(split):
        with lzma.open(REAL_DATA / f"ptb/ptb.{split}.txt.xz", "rt", encoding="utf-8") as file:
            return file.read().replace("\n", " <eos> ").split()

    train, test = words("train"), words("test")
    ids = {word: number for number, word in enumerate(sorted(set(train)))}
    model = KneserNey.fit(np.array([ids[word] for word in train]), ids["<eos>"], len(ids), order=5)
    assert (len(ids), len(test)) == (10_000, 82_430)
    assert model.perplexity(np.array([ids[word] for word in test])) == pytest.approx(141.2, abs=0.3)
