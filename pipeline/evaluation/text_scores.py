"""Corpus-level scores of generated texts against one or more references."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from pipeline.evaluation.metrics import Score


class BLEU(Score):
    """BLEU in percent, by sacreBLEU (Papineni et al. 2002; Post 2018).

    Args:
        lowercase: compare lower-cased texts.
        tokenize: sacreBLEU's tokenizer; 13a is that of WMT, intl splits at all punctuation.
        name: name of the score, if several ones are computed.
    """

    def __init__(self, lowercase: bool = False, tokenize: str = "13a", name: str = "bleu") -> None:
        from sacrebleu.metrics.bleu import BLEU as Corpus

        self.name = name
        self.corpus = Corpus(lowercase=lowercase, tokenize=tokenize)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return the score."""
        return {self.name: self.corpus.corpus_score(hypotheses, _streams(references)).score}

    def signature(self) -> str:
        """Return the settings that papers should report with the last value."""
        return f"BLEU|{self.corpus.get_signature()}"


class ChrF(Score):
    """F score of character n-grams in percent, by sacreBLEU (Popovic 2015).

    Args:
        word_order: 2 makes it chrF++.
    """

    def __init__(self, word_order: int = 0) -> None:
        from sacrebleu.metrics.chrf import CHRF

        self.corpus = CHRF(word_order=word_order)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `chrf`."""
        return {"chrf": self.corpus.corpus_score(hypotheses, _streams(references)).score}

    def signature(self) -> str:
        """Return the settings that papers should report with the last value."""
        return f"chrF{self.corpus.beta}|{self.corpus.get_signature()}"


class ExactMatch(Score):
    """Percentage of texts that equal one of their references, word by word."""

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `exact_match`."""
        right = [
            text.split() in [reference.split() for reference in any_of]
            for text, any_of in zip(hypotheses, references, strict=True)
        ]
        return {"exact_match": 100 * sum(right) / len(right)}


class ErrorRate(Score):
    """Edit distance to the reference in percent of its length (Levenshtein 1966).

    With several references, the one with the lowest error rate is used.

    Args:
        name: prefix of the rate's name: `word` gives word_error_rate and wrong_texts.
        characters: compare characters instead of words.
    """

    def __init__(self, name: str = "word", characters: bool = False) -> None:
        self.name, self.characters = name, characters

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return the error rate, and the percentage of texts that differ from their reference."""
        from rapidfuzz.distance import Levenshtein

        edits = length = wrong = 0
        for hypothesis, any_of in zip(hypotheses, references, strict=True):
            symbols = self._symbols(hypothesis)
            right = [self._symbols(reference) for reference in any_of]
            counts = [(Levenshtein.distance(symbols, each), len(each)) for each in right]
            best = min(counts, key=lambda count: (count[0] / max(count[1], 1), -count[1]))
            edits, length, wrong = edits + best[0], length + best[1], wrong + (best[0] > 0)
        rate = 100 * edits / length if length else float(100 * bool(edits))
        return {f"{self.name}_error_rate": rate, "wrong_texts": 100 * wrong / len(hypotheses)}

    def _symbols(self, text: str) -> Sequence[Hashable]:
        return text if self.characters else text.split()


class Distinct(Score):
    """Distinct n-grams in percent of all n-grams, which is low for repetitive texts (Li et al. 2016).

    Args:
        n: number of words of an n-gram.
    """

    def __init__(self, n: int = 2) -> None:
        self.n = n

    def __call__(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return `distinct_n`."""
        found: Counter[tuple[str, ...]] = Counter()
        for text in hypotheses:
            words = text.split()
            found.update(zip(*(words[at:] for at in range(self.n)), strict=False))
        return {f"distinct_{self.n}": 100 * len(found) / max(found.total(), 1)}


def _streams(references: Sequence[Sequence[str]]) -> Any:  # sacreBLEU accepts None, but its annotations do not
    """Return the first references of all texts, the second ones, and so on; None if a text has fewer."""
    most = max(map(len, references))
    return [[each[at] if at < len(each) else None for each in references] for at in range(most)]
