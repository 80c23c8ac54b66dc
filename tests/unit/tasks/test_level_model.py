"""A label conditions every position of its sequence, and no other position."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from pipeline.data.documents import Documents
from pipeline.models.lstm import LSTM
from pipeline.optim import Plateau
from pipeline.tasks.level_model import LevelModel, label_condition
from pipeline.tasks.token_prediction import TokenHead


@pytest.mark.numeric
def test_a_label_holds_until_its_clip_ends() -> None:
    read = torch.zeros(2, 40, dtype=torch.long)
    read[0, [0, 17]], read[0, 16] = torch.tensor([257, 259]), 256
    read[1, 30], read[1, 31] = 256, 258
    inputs = torch.arange(1.0, 81.0).view(2, 40, 1)
    before = torch.tensor([[-1.0], [-2.0]])
    expected = torch.cat([torch.full((16,), 1.0), torch.zeros(1), torch.full((23,), 18.0)])
    assert torch.equal(label_condition(read, inputs, before, 256)[0, :, 0], expected)
    expected = torch.cat([torch.full((30,), -2.0), torch.zeros(1), torch.full((9,), 72.0)])
    assert torch.equal(label_condition(read, inputs, before, 256)[1, :, 0], expected)


LEVELS, LABELS = 5, 3


def model(labels: int = LABELS) -> LevelModel:
    torch.manual_seed(0)
    return LevelModel(LSTM(width=8), LEVELS + 1 + labels, LEVELS).eval()


def test_the_vocabulary_is_levels_eos_and_labels() -> None:
    made = model()
    assert (made.levels, made.labels, model(labels=0).labels) == (5, 3, 0)
    assert [made.opening(label) for label in (None, 0, 2)] == [5, 6, 8]
    assert made.preview_callbacks(Path("runs/one")) == []


@pytest.mark.numeric
def test_labels_are_excluded_and_eos_is_allowed_only_on_request() -> None:
    made, tokens = model(), torch.tensor([[7, 1, 2, 3], [5, 0, 0, 4]])
    logits, _ = made(tokens)
    for ends in (False, True):
        found, _ = made.within(tokens, None, ends)
        kept = LEVELS + ends
        assert torch.equal(found[..., :kept], logits[..., :kept])
        assert (found[..., kept:] == -torch.inf).all()


@pytest.mark.numeric
def test_the_label_is_added_to_the_input_at_every_position_and_is_part_of_the_state() -> None:
    made, tokens = model(), torch.tensor([[7, 1, 2, 3, 0, 1, 5, 2, 8, 1], [5, 0, 0, 4, 6, 2, 2, 2, 2, 2]])
    inputs = made.embedding(tokens)
    places = [[0] * 6 + [None] * 2 + [8] * 2, [None] * 4 + [4] * 6]  # position of the label of each position
    for row, labels in enumerate(places):
        for place, label in enumerate(labels):
            if label is not None:
                inputs[row, place] = inputs[row, place] + made.embedding(tokens)[row, label]
    expected = made.output(made.network(inputs, None)[0])
    whole, _ = made(tokens)
    torch.testing.assert_close(whole, expected)
    for cut in (1, 5, 7, 9):
        first, state = made(tokens[:, :cut])
        second, _ = made.within(tokens[:, cut:], state, ends=True)
        torch.testing.assert_close(first, expected[:, :cut])
        torch.testing.assert_close(second[..., : LEVELS + 1], expected[:, cut:, : LEVELS + 1])


@pytest.mark.numeric
def test_documents_side_by_side_have_their_own_labels_and_leave_no_state() -> None:
    made, tokens = model(), torch.tensor([[7, 1, 2, 6, 0, 1]])
    documents = Documents.of(np.array([[True, False, False, True, False, False]]))
    found, state = made(tokens, None, documents)
    assert state is None
    torch.testing.assert_close(found[:, :3], made(tokens[:, :3])[0])
    torch.testing.assert_close(found[:, 3:], made(tokens[:, 3:])[0])


@pytest.mark.numeric
def test_without_labels_it_is_a_language_model() -> None:
    made, tokens = model(labels=0), torch.tensor([[5, 1, 2, 3, 4, 0]])
    expected, state = made.network(made.embedding(tokens), None)
    found, after = made(tokens)
    torch.testing.assert_close(found, made.output(expected))
    torch.testing.assert_close(after, state)
    torch.testing.assert_close(made(tokens[:, 3:], made(tokens[:, :3])[1])[0], found[:, 3:])
    documents = Documents.of(np.array([[False, False, False, True, False, False]]))
    torch.testing.assert_close(made(tokens, None, documents)[0][:, 3:], made(tokens[:, 3:])[0])


def test_it_is_trained_with_the_optimizer_and_schedule_that_it_was_given() -> None:
    schedule, head = Plateau(), TokenHead(tied=False)
    made = LevelModel(LSTM(width=8), 9, 5, head, SGD, schedule)
    assert (made.head, made.schedule, made.optimizer_of) == (head, schedule, SGD)
