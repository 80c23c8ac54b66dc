"""Scores of generated captions against reference captions, computed on lower-cased words without punctuation.

CIDEr-D: Vedantam, Zitnick and Parikh (2015), "CIDEr: Consensus-based Image Description Evaluation", section 6.
ROUGE-L: Lin (2004), "ROUGE: A Package for Automatic Evaluation of Summaries", equations 2 to 4, with the best recall
and the best precision of all references and beta = 1.2, as for captions (Chen et al. 2015).
METEOR: Banerjee and Lavie (2005), by NLTK from equal words and stems, without synonyms, which require a download.
BLEU is `pipeline.evaluation.text_scores.BLEU`.
"""

import math
from collections import Counter
from collections.abc import Sequence

from pipeline.dataset.text_normalization import plain_words
from pipeline.evaluation.metrics import Score

Gram = tuple[str, ...]


class CIDErD(Score):
    """CIDEr-D: cosine similarity of TF-IDF weighted n-grams with those of the references, from 0 to 10."""

    longest, deviation = 4, 6.0

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `cider_d`, the mean over images; the references of all images define the IDF weights."""
        counts = [[self._counts(plain_words(text)) for text in each] for each in references]
        images = Counter(gram for each in counts for gram in set().union(*each))
        weights = {gram: math.log(len(counts)) - math.log(count) for gram, count in images.items()}
        rarest = math.log(len(counts))
        total = 0.0
        for hypothesis, each in zip(hypotheses, counts, strict=True):
            mine = self._counts(plain_words(hypothesis))
            total += sum(self._similarity(mine, other, weights, rarest) for other in each) / len(each)
        return {"cider_d": 10 * total / len(hypotheses)}

    def _counts(self, words: Sequence[str]) -> Counter[Gram]:
        grams = (zip(*(words[at:] for at in range(n)), strict=False) for n in range(1, self.longest + 1))
        return Counter(gram for of_length in grams for gram in of_length)

    def _similarity(
        self, mine: Counter[Gram], other: Counter[Gram], weights: dict[Gram, float], rarest: float
    ) -> float:
        """Return the mean over n of clipped cosine similarities, with a penalty for a different length."""
        apart = sum(mine[gram] for gram in mine if len(gram) == 1) - sum(other[g] for g in other if len(g) == 1)
        total = 0.0
        for n in range(1, self.longest + 1):
            left, right = (
                {gram: count * weights.get(gram, rarest) for gram, count in counts.items() if len(gram) == n}
                for counts in (mine, other)
            )
            both = sum(min(value, right[gram]) * right[gram] for gram, value in left.items() if gram in right)
            norms = math.hypot(*left.values()) * math.hypot(*right.values())
            total += both / norms if norms else 0.0
        return total / self.longest * math.exp(-(apart**2) / (2 * self.deviation**2))


class ROUGEL(Score):
    """F score of the longest common subsequence of words, in percent."""

    beta = 1.2

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `rouge_l`, the mean over images."""
        from rapidfuzz.distance import LCSseq

        total = 0.0
        for hypothesis, each in zip(hypotheses, references, strict=True):
            hypothesis_words = plain_words(hypothesis)
            found = [(LCSseq.similarity(hypothesis_words, words), len(words)) for words in map(plain_words, each)]
            precision = max(common for common, _ in found) / max(len(hypothesis_words), 1)
            recall = max(common / max(length, 1) for common, length in found)
            if precision and recall:
                total += (1 + self.beta**2) * precision * recall / (recall + self.beta**2 * precision)
        return {"rouge_l": 100 * total / len(hypotheses)}


class METEORWithoutSynonyms(Score):
    """METEOR without synonyms, in percent: equal words and equal stems are matched with the best reference.

    Published figures also match synonyms of WordNet, and are higher.
    """

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `meteor_without_synonyms`, the mean over images."""
        from nltk.translate.meteor_score import meteor_score

        scores = [
            meteor_score([plain_words(text) for text in each], plain_words(hypothesis), wordnet=_NoSynonyms())
            for hypothesis, each in zip(hypotheses, references, strict=True)
        ]
        return {"meteor_without_synonyms": 100 * sum(scores) / len(scores)}


class _NoSynonyms:
    """A replacement of WordNet without any synonyms."""

    def synsets(self, word: str) -> list[object]:
        return []
