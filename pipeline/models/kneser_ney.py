"""A Kneser-Ney n-gram model, estimated from counts in one pass over the text.

Interpolated modified Kneser-Ney smoothing (Chen and Goodman 1998, "An empirical study of smoothing techniques
for language modeling", section 4.1.6). For a token w after a context h, which without its oldest token is h':

    p(w | h) = (a(hw) - D(a(hw))) / a(h.) + backoff(h) p(w | h'),    backoff(h) = sum_w D(a(hw)) / a(h.)

a is the count at the highest order. At lower orders, it is the number of different tokens seen before hw, or the
count if hw starts a sentence, where no token can precede it. D has three values per order, for a = 1, 2 and more,
estimated from n1..n4, the numbers of n-grams with a = 1..4. The recursion ends in the uniform distribution over
the V tokens. Each sentence starts with a BOS token, which is never predicted, and ends with `eos`, which is. All
n-grams are kept, including those that occur once.

An n-gram is stored as one integer: the index of its context in the table of the order below, times V + 1, plus its
last token. A table holds these integers in ascending order. Binary search finds an n-gram, and a slice holds all
continuations of a context.

Legend: N tokens of a stream, S tokens with BOS, V tokens of the vocabulary, M n-grams of an order, C contexts (the
n-grams one order below).
"""

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, Integer

if TYPE_CHECKING:
    from pipeline.dataset.manifest import Dataset
    from pipeline.dataset.tokens import TokenSplit

__all__ = ["KneserNey", "measure_baseline"]

ABSENT = -1  # index of an n-gram that is not in its table


class Table(NamedTuple):
    """The n-grams of one order; an n-gram's index is its position in `keys`."""

    keys: Int64[np.ndarray, " M"]
    """Context index * (V + 1) + last token, ascending."""
    share: Float64[np.ndarray, " M"]
    """(a - D(a)) / a(h.): the discounted probability of the n-gram given its context."""
    backoff: Float64[np.ndarray, " C"]
    """Backoff weight of each context; 1 for a context without continuations."""


class KneserNey:
    """An n-gram model with interpolated modified Kneser-Ney smoothing, created by `fit`.

    Args:
        tables: one table per order, from unigrams up.
        eos: the token that ends a sentence.
        vocab_size: number of tokens that can be predicted.
    """

    def __init__(self, tables: Sequence[Table], eos: int, vocab_size: int) -> None:
        self.tables = tuple(tables)
        self.eos = eos
        self.vocab_size = vocab_size

    @classmethod
    def fit(cls, tokens: Integer[np.ndarray, " N"], eos: int, vocab_size: int, order: int = 5) -> "KneserNey":
        """Count the n-grams of a stream in which `eos` ends each sentence.

        Raises:
            ValueError: the stream is empty, the order is below 1, or a token is outside the vocabulary.
        """
        if order < 1:
            raise ValueError(f"order={order} must be at least 1")
        if len(tokens) == 0:
            raise ValueError("tokens is empty: expected at least one token")
        stream, depth = open_sentences(tokens, eos, vocab_size)
        tables: list[Table] = []
        counted = count_ngrams(np.zeros(len(stream), np.int64), stream, depth, vocab_size, 1)
        for n in range(1, order + 1):
            above = count_ngrams(counted.ids, stream, depth, vocab_size, n + 1) if n < order else None
            contexts = len(tables[-1].keys) if tables else 1
            tables.append(smooth(counted.keys, adjusted(counted, above, vocab_size), contexts, vocab_size))
            counted = above or counted
        return cls(tables, eos, vocab_size)

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.tables)

    @property
    def ngrams(self) -> int:
        """Number of n-grams over all orders, comparable to a number of parameters."""
        return sum(len(table.keys) for table in self.tables)

    @property
    def bytes(self) -> int:
        """Size of the tables in bytes."""
        return sum(array.nbytes for table in self.tables for array in table)

    def log_probabilities(self, tokens: Integer[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Return the natural log probability of each token given the preceding tokens of its sentence.

        Raises:
            ValueError: a token is outside the vocabulary.
        """
        stream, depth = open_sentences(tokens, self.eos, self.vocab_size)
        probability = np.full(len(stream), 1 / self.vocab_size)
        ids = np.zeros(len(stream), np.int64)
        for n, table in enumerate(self.tables, start=1):
            contexts = previous(ids, depth, n)
            ids = find(table.keys, contexts, stream, self.vocab_size)
            probability *= np.where(contexts == ABSENT, 1.0, table.backoff[contexts])
            probability += np.where(ids == ABSENT, 0.0, table.share[ids])
        logs: np.ndarray = np.log(probability[depth > 0])
        return logs

    def perplexity(self, tokens: Integer[np.ndarray, " N"]) -> float:
        """Return exp of the mean negative log probability of a token, EOS included."""
        return float(np.exp(-self.log_probabilities(tokens).mean()))

    def distribution(self, context: Sequence[int]) -> Float64[np.ndarray, " V"]:
        """Return the probability of every token after `context`, the tokens of the sentence so far.

        Raises:
            ValueError: a token is outside the vocabulary.
        """
        opened, depth = open_sentences(np.array([*context, self.eos], np.int64), self.eos, self.vocab_size)
        probability = np.full(self.vocab_size, 1 / self.vocab_size)
        for n, table in enumerate(self.tables, start=1):
            if n - 1 > depth[-1]:  # The sentence is shorter than this context.
                break
            number = self._number(opened[len(opened) - n : -1])
            if number == ABSENT:
                break
            base = number * (self.vocab_size + 1)
            first, last = np.searchsorted(table.keys, [base, base + self.vocab_size])
            probability *= table.backoff[number]
            probability[table.keys[first:last] - base] += table.share[first:last]
        return probability

    def _number(self, ngram: Int64[np.ndarray, " n"]) -> int:
        """Return the index of an n-gram in the table of its order."""
        number = np.zeros(1, np.int64)
        for table, token in zip(self.tables, ngram, strict=False):
            number = find(table.keys, number, token[None], self.vocab_size)
        return int(number[0])


class Counted(NamedTuple):
    """The n-grams of one order in a stream."""

    keys: Int64[np.ndarray, " M"]
    counts: Int64[np.ndarray, " M"]
    first: Int64[np.ndarray, " M"]
    """Position in the stream at which each n-gram first ends."""
    ids: Int64[np.ndarray, " S"]
    """Index of the n-gram that ends at each position, ABSENT if the sentence is too short."""


def open_sentences(
    tokens: Integer[np.ndarray, " N"], eos: int, vocab_size: int
) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
    """Insert BOS, token V, before each sentence; return the stream and each position's distance from its BOS."""
    outside = (tokens < 0) | (tokens >= vocab_size)
    if outside.any():
        raise ValueError(f"token {tokens[outside][0]} is outside the vocabulary of {vocab_size} tokens")
    ends = np.flatnonzero(tokens[:-1] == eos) + 1
    stream = np.insert(tokens.astype(np.int64), np.concatenate([[0], ends]).astype(np.int64), vocab_size)
    place = np.arange(len(stream))
    return stream, place - np.maximum.accumulate(np.where(stream == vocab_size, place, 0))


def previous(ids: Int64[np.ndarray, " S"], depth: Int64[np.ndarray, " S"], n: int) -> Int64[np.ndarray, " S"]:
    """Return the context of the n-gram that ends at each position: the (n-1)-gram that ends one position before."""
    return np.where(depth >= n - 1, np.roll(ids, 1) if n > 1 else ids, ABSENT)


def count_ngrams(
    ids: Int64[np.ndarray, " S"],
    stream: Int64[np.ndarray, " S"],
    depth: Int64[np.ndarray, " S"],
    vocab_size: int,
    n: int,
) -> Counted:
    """Count the n-grams of a stream, given the indices of the (n-1)-grams."""
    contexts = previous(ids, depth, n)
    places = np.flatnonzero(contexts != ABSENT)
    packed = contexts[places] * (vocab_size + 1) + stream[places]
    keys, first, inverse, counts = np.unique(packed, return_index=True, return_inverse=True, return_counts=True)
    numbers = np.full(len(stream), ABSENT)
    numbers[places] = inverse
    return Counted(keys, counts, places[first], numbers)


def adjusted(counted: Counted, above: Counted | None, vocab_size: int) -> Int64[np.ndarray, " M"]:
    """Return a of each n-gram: the number of tokens that precede it, or its count without `above` or predecessors."""
    a = counted.counts
    if above is not None:
        preceded = np.bincount(counted.ids[above.first], minlength=len(a))
        a = np.where(preceded > 0, preceded, a)  # An n-gram without predecessors starts its sentences.
    return np.where(counted.keys == vocab_size, 0, a)  # BOS is never predicted.


def smooth(keys: Int64[np.ndarray, " M"], a: Int64[np.ndarray, " M"], contexts: int, vocab_size: int) -> Table:
    """Discount each n-gram and assign the discounted mass to the order below."""
    taken = discounts(a)[np.minimum(a, 3)]
    context = keys // (vocab_size + 1)
    total = np.bincount(context, weights=a, minlength=contexts)
    spared = np.bincount(context, weights=taken, minlength=contexts)
    share = (a - taken) / np.maximum(total, 1)[context]
    return Table(keys, share, np.where(total > 0, spared / np.maximum(total, 1), 1.0))


def discounts(a: Int64[np.ndarray, " M"]) -> Float64[np.ndarray, " 4"]:
    """Return D for a = 0, 1, 2 and 3 or more (Chen and Goodman 1998, equation 26).

    If the counts of counts do not determine D (one of n1..n4 is zero, as for unigrams of bytes, or a discount is not
    positive), the discounts are 0.5, 1 and 1.5.
    """
    n1, n2, n3, n4 = (int((a == times).sum()) for times in (1, 2, 3, 4))
    fallback = np.array([0.0, 0.5, 1.0, 1.5])
    if min(n1, n2, n3, n4) == 0:
        return fallback
    y = n1 / (n1 + 2 * n2)
    estimated = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return estimated if estimated[1:].min() > 0 else fallback


def find(
    keys: Int64[np.ndarray, " M"],
    contexts: Int64[np.ndarray, " S"],
    tokens: Int64[np.ndarray, " S"],
    vocab_size: int,
) -> Int64[np.ndarray, " S"]:
    """Return the index of the n-gram of each context and token, ABSENT if it was not counted."""
    packed = contexts * (vocab_size + 1) + tokens  # negative for an absent context, so never found
    places = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
    return np.where((contexts != ABSENT) & (keys[places] == packed), places, ABSENT)


def measure_baseline(dataset: "Dataset", order: int = 5) -> dict[str, Any]:
    """Fit the Kneser-Ney n-gram baseline on the training split and evaluate it on the other splits.

    Returns:
        order, ngrams (number over all orders), memory_gb (of the tables), seconds (of counting), and for each
        existing split of `validation` and `test`: nats (summed), tokens (predicted), perplexity, bits_per_byte.
    """
    train = dataset.splits["train"]
    begun = perf_counter()
    model = KneserNey.fit(train.read(0, train.tokens), dataset.target.eos, dataset.target.size, order)
    figures: dict[str, Any] = {
        "order": order,
        "ngrams": model.ngrams,
        "memory_gb": model.bytes / 1e9,
        "seconds": perf_counter() - begun,
    }
    for name in ("validation", "test"):
        if name in dataset.splits and dataset.splits[name].tokens > 0:
            figures[name] = measure_split(model, dataset.splits[name])
    return figures


def measure_split(model: KneserNey, split: "TokenSplit") -> dict[str, float]:
    """Return the summed loss of a split and the metrics derived from it."""
    nats = -float(model.log_probabilities(split.read(0, split.tokens)).sum())
    return {
        "nats": nats,
        "tokens": split.tokens,
        "perplexity": float(np.exp(nats / split.tokens)),
        "bits_per_byte": nats / float(np.log(2)) / max(split.bytes, 1),
    }
