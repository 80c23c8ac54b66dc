"""Scores follow their definitions, on examples small enough to count by hand."""

import importlib.metadata
import math

import pytest

from pipeline.evaluation.text_scores import BLEU, ChrF, Distinct, ErrorRate, ExactMatch


def test_bleu_is_the_geometric_mean_of_precisions_with_the_brevity_penalty() -> None:
    hypotheses = ["the cat sat on the mat", "a dog barks very loud today"]
    references = [["the cat sat on the red mat"], ["a dog barks very loudly today"]]
    # matches of n words: 6 of 6 and 5 of 6, 4 of 5 and 3 of 5, 3 of 4 and 2 of 4, 2 of 3 and 1 of 3
    precisions = [11 / 12, 7 / 10, 5 / 8, 3 / 6]
    expected = 100 * math.exp(1 - 13 / 12) * math.prod(precisions) ** (1 / 4)
    assert BLEU()(hypotheses, references)["bleu"] == pytest.approx(expected)


def test_any_of_several_references_counts() -> None:
    hypotheses, references = (
        ["a small house is here", "yes it is so"],
        [["nothing", "a small house is here"], ["yes it is so"]],
    )
    for score, name in ((BLEU(), "bleu"), (ChrF(), "chrf")):
        assert score(hypotheses, references)[name] == pytest.approx(100)
    assert ErrorRate()(hypotheses, references) == {"word_error_rate": 0, "wrong_texts": 0}


def test_sacrebleu_returns_its_signature() -> None:
    version = importlib.metadata.version("sacrebleu")
    bleu, chrf = BLEU(), ChrF(word_order=2)
    for score in (bleu, chrf):
        score(["a b c d"], [["a b c d", "a b c"]])
    assert bleu.signature() == f"BLEU|nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert chrf.signature() == f"chrF2|nrefs:2|case:mixed|eff:yes|nc:6|nw:2|space:no|version:{version}"
    assert ErrorRate().signature() is None


def test_an_exact_match_equals_one_of_its_references() -> None:
    hypotheses, references = ["a b", "a  b", "a c", ""], [["b", "a b"], ["a b"], ["a b", "c"], ["a"]]
    assert ExactMatch()(hypotheses, references) == {"exact_match": 50}


def test_error_rates_are_edits_over_the_length_of_the_reference() -> None:
    hypotheses = ["R IY D", "AH B", "K AE T S"]
    references = [["R EH D", "R IY D"], ["AH"], ["K AE T"]]
    found = ErrorRate("phoneme")(hypotheses, references)
    assert found == {"phoneme_error_rate": pytest.approx(100 * 2 / 7), "wrong_texts": pytest.approx(100 * 2 / 3)}
    characters = ErrorRate("character", characters=True)(["kitten", ""], [["sitting"], ["ab"]])
    assert characters["character_error_rate"] == pytest.approx(100 * (3 + 2) / 9)


def test_the_reference_with_the_lowest_error_rate_is_used() -> None:
    # one edit of one symbol, or two edits of ten
    found = ErrorRate()(["a b c d e f g h x y"], [["a", "a b c d e f g h i j"]])
    assert found["word_error_rate"] == pytest.approx(20)


def test_distinct_n_grams_are_a_percentage_of_all() -> None:
    hypotheses = ["i do not know", "i do not know", "yes"]
    assert Distinct(1)(hypotheses, [[""]] * 3) == {"distinct_1": pytest.approx(100 * 5 / 9)}
    assert Distinct(2)(hypotheses, [[""]] * 3) == {"distinct_2": pytest.approx(100 * 3 / 6)}
    assert Distinct(2)(["yes"], [[""]]) == {"distinct_2": 0}


def test_error_rates_of_an_empty_reference_are_0_or_100() -> None:
    assert ErrorRate()(["a b", ""], [[""], [""]]) == {"word_error_rate": 100.0, "wrong_texts": 50.0}
    assert ErrorRate()(["", ""], [[""], [""]]) == {"word_error_rate": 0.0, "wrong_texts": 0.0}


def test_of_references_with_equal_error_rates_the_longer_one_is_used() -> None:
    # one edit of two symbols or two of four, then all of one or of two
    assert ErrorRate()(["a b"], [["a x", "a b c d"]])["word_error_rate"] == 50
    assert ErrorRate()(["a b", "x"], [["a b c d", "a x"], ["a b c d e"]])["word_error_rate"] == pytest.approx(700 / 9)
    # an empty reference counts as one symbol long
    assert ErrorRate()(["a"], [["", "b c"]])["word_error_rate"] == 100


def test_texts_are_compared_as_they_are_written_and_tokenized_as_for_wmt() -> None:
    assert BLEU()(["The cat sat on it."], [["the cat sat on it ."]])["bleu"] < 90
    assert BLEU(lowercase=True)(["The cat sat on it."], [["the cat sat on it ."]])["bleu"] == pytest.approx(100)
    assert BLEU(tokenize="none")(["the cat sat on it."], [["the cat sat on it ."]])["bleu"] < 90


def test_single_n_grams_count() -> None:
    assert Distinct()(["a b"], [[""]]) == {"distinct_2": 100}
    assert Distinct(1)([""], [[""]]) == {"distinct_1": 0}
