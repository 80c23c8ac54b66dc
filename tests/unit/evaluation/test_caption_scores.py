"""Scores of captions follow the published formulas."""

import pytest

from pipeline.evaluation.caption_scores import ROUGEL, CIDErD, METEORWithoutSynonyms
from pipeline.evaluation.metrics import Score

WRITTEN = [
    "a dog runs on the grass",
    "two men are playing football",
    "a child",
    "the man in the red shirt climbs a rock wall",
]
SAID = [
    ["a brown dog runs through the grass", "a dog is running on green grass"],
    ["two men play football", "men playing a game of football on a field", "two players are playing"],
    ["a small child smiles at the camera"],
    ["a man in a red shirt is climbing a rock", "the climber is on a rock wall"],
]


def test_cider_d_and_rouge_l_are_those_of_the_captions_evaluation() -> None:
    # computed once by pycocoevalcap 1.2
    assert CIDErD()(WRITTEN, SAID)["cider_d"] == pytest.approx(1.8380731171127902, rel=1e-12)
    assert ROUGEL()(WRITTEN, SAID)["rouge_l"] == pytest.approx(61.07443438412458, rel=1e-12)


def test_rouge_l_takes_the_best_precision_and_the_best_recall() -> None:
    # "a dog runs" against "a cat runs fast" and "dog": precision 2/3, recall 1
    precision, recall = 2 / 3, 1.0
    expected = 100 * 2.44 * precision * recall / (recall + 1.44 * precision)
    assert ROUGEL()(["a dog runs"], [["a cat runs fast", "dog"]])["rouge_l"] == pytest.approx(expected)


def test_meteor_is_its_formula_for_equal_words_and_stems() -> None:
    # "dogs run on grass" against "a dog runs on grass": 4 matches (two by their stems), in one chunk
    precision, recall = 4 / 4, 4 / 5
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    expected = 100 * mean * (1 - 0.5 * (1 / 4) ** 3)
    assert METEORWithoutSynonyms()(["dogs run on grass"], [["a dog runs on grass"]])[
        "meteor_without_synonyms"
    ] == pytest.approx(expected)


@pytest.mark.parametrize("score", [CIDErD(), ROUGEL(), METEORWithoutSynonyms()])
def test_equal_words_score_highest_and_other_words_zero_without_punctuation(score: Score) -> None:
    [(_, right)] = score([each[0].upper() + " ." for each in SAID], [each[:1] for each in SAID]).items()
    assert right == pytest.approx(10 if isinstance(score, CIDErD) else 100, rel=0.01)
    [(_, wrong)] = score(["xyz", "", "xyz", "x y z w"], SAID).items()
    assert wrong == 0
