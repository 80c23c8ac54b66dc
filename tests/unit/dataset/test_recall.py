"""Questions match their definitions, and guessing reaches the chance level of the formulas."""

import math

import numpy as np
import pytest

from pipeline.dataset.recall import ADDING_CHANCE, Association, Copy, SelectiveCopy, adding


def drawn(task, count=200):
    return [task.draw(np.random.default_rng((7, number))) for number in range(count)]


def test_copying_shows_the_answer_first_and_then_blanks_alone():
    for question, answer in drawn(Copy(length=20, items=6, symbols=5)):
        np.testing.assert_array_equal(question[:6], answer)
        np.testing.assert_array_equal(question[6:], np.zeros(20))
        assert answer.min() >= 1
        assert answer.max() <= 5


def test_default_sizes_are_those_of_the_paper():
    question, answer = Copy().draw(np.random.default_rng(1))
    assert len(question) + len(answer) == 1000 + 20
    assert (len(answer), Copy().symbols) == (10, 8)
    # the paper averages over all positions, of which only the answer has a loss: 0.0204
    assert Copy().chance["loss"] * len(answer) / 1020 == pytest.approx(0.0204, abs=5e-5)


def test_selective_copying_keeps_the_order_and_moves_the_places():
    places = set()
    for question, answer in drawn(SelectiveCopy(length=20, items=6, symbols=5)):
        assert len(question) == 26
        np.testing.assert_array_equal(question[question > 0], answer)
        places.add(tuple(np.flatnonzero(question)))
    assert len(places) > 150


def test_association_queries_a_key_that_occurs_once_with_its_value():
    task = Association(length=7, items=5, symbols=9)
    for question, answer in drawn(task):
        keys, values = question[:10:2], question[1:10:2]
        assert len(set(keys)) == len(set(values)) == 5
        assert all(task.words[key].startswith("k") for key in keys)
        np.testing.assert_array_equal(question[10:17], np.zeros(7))
        np.testing.assert_array_equal(values[keys == question[-1]], answer)


@pytest.mark.parametrize("task", [Copy(5, 4, 3), SelectiveCopy(5, 4, 3), Association(0, 3, 5)])
def test_predicting_one_symbol_reaches_chance_accuracy(task):
    answers = np.concatenate([answer for _, answer in drawn(task, 4000)])
    assert task.chance["accuracy"] == pytest.approx(100 / task.symbols)
    assert task.chance["loss"] == pytest.approx(math.log(task.symbols))
    deviation = 100 * math.sqrt(1 / task.symbols * (1 - 1 / task.symbols) / len(answers))
    assert abs(100 * np.mean(answers == 1) - task.chance["accuracy"]) < 4 * deviation


def test_predicting_the_first_value_is_correct_in_one_of_the_items():
    task = Association(0, 4, 9)
    right = np.mean([question[1] == answer[0] for question, answer in drawn(task, 4000)])
    assert task.chance["accuracy_without_keys"] == 25
    assert abs(right - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)


def test_adding_marks_two_numbers_and_sums_them():
    sums = []
    for number in range(4000):
        numbers, marks, total = adding(30, np.random.default_rng(number))
        assert sorted(marks) == [0] * 28 + [1, 1]
        assert 0 <= numbers.min() <= numbers.max() < 1
        assert total == pytest.approx(float(numbers[marks == 1].sum()))
        sums.append(total)
    assert pytest.approx(2 / 12) == ADDING_CHANCE
    assert np.mean((np.array(sums) - 1) ** 2) == pytest.approx(ADDING_CHANCE, rel=0.06)


@pytest.mark.parametrize("sizes", [(-1, 1, 2), (0, 0, 2), (0, 1, 1)])
def test_invalid_sizes_are_rejected(sizes):
    with pytest.raises(ValueError, match=f"length={sizes[0]}, items={sizes[1]} and symbols={sizes[2]}"):
        Copy(*sizes)


def test_more_keys_than_symbols_are_rejected():
    with pytest.raises(ValueError, match="items=5: expected at most symbols="):
        Association(0, 5, 4)
