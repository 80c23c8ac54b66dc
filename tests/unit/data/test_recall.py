"""A question is read with EOS tokens at the answer's positions, and only the answer is predicted."""

import numpy as np
import pytest

from pipeline.data.batch import IGNORE
from pipeline.data.batch_plan import NO_SAMPLE
from pipeline.data.recall import RecallDataModule
from pipeline.errors import ConfigError


def test_a_row_is_the_question_and_eos_tokens(tiny_recall_dataset):
    module = RecallDataModule(tiny_recall_dataset)
    samples = module.samples("train")
    batch = module.batch("train", np.array([3, 5]))
    assert batch.inputs.shape == (2, 3 + 5 + 3)
    for row, sample in enumerate((3, 5)):
        assert batch.inputs[row, :8].tolist() == samples.split.value("source", sample).tolist()
        assert batch.inputs[row, 8:].tolist() == [module.dataset.target.eos] * 3
        assert batch.targets[row, :8].tolist() == [IGNORE] * 8
        assert batch.targets[row, 8:].tolist() == batch.inputs[row, :3].tolist()
    assert batch.predictions == 6


def test_questions_of_different_lengths_are_padded_on_the_right(tiny_pairs_dataset):
    module = RecallDataModule(tiny_pairs_dataset)
    batch = module.batch("train", np.array([0, 1, NO_SAMPLE, 2]))
    expected = int(module.split("train").target_lengths[:3].sum())
    assert batch.predictions == int((batch.targets != IGNORE).sum()) == expected
    assert (batch.targets[2] == IGNORE).all()


def test_a_process_without_questions_reads_one_eos_token(tiny_recall_dataset):
    module = RecallDataModule(tiny_recall_dataset)
    batch = module.batch("validation", np.array([NO_SAMPLE, NO_SAMPLE]))
    assert batch.inputs.tolist() == [[module.dataset.target.eos]] * 2
    assert (batch.targets == IGNORE).all()


def test_a_batch_larger_than_the_split_is_rejected(tiny_recall_dataset):
    module = RecallDataModule(tiny_recall_dataset, global_batch_size=65)
    with pytest.raises(ConfigError, match="has 64 questions, fewer than global_batch_size=65"):
        module.plan(module.samples("train"))


def test_the_scores_of_chance_are_known(tiny_recall_dataset, tiny_pairs_dataset):
    assert RecallDataModule(tiny_recall_dataset).chance["accuracy"] == 25
    assert RecallDataModule(tiny_pairs_dataset).chance == {}


def test_the_published_copying_task_predicts_every_position(tiny_recall_dataset, monkeypatch):
    """Arjovsky, Shah and Bengio 2016: S values, T - 1 blanks and S + 1 delimiters; T + S blanks and the S values."""
    module = RecallDataModule(tiny_recall_dataset, every_position=True)
    batch = module.batch("train", np.array([3, NO_SAMPLE, 5]))
    eos, (blank,) = module.dataset.target.eos, set(batch.inputs[0, 3:8].tolist())
    assert batch.inputs.shape == (3, 3 + 5 + 1 + 3)
    for row in (0, 2):
        assert batch.inputs[row, 8:].tolist() == [eos] * 4
        assert batch.targets[row].tolist() == [blank] * 9 + batch.inputs[row, :3].tolist()
    assert (batch.targets[1] == IGNORE).all()
    assert batch.predictions == (batch.targets != IGNORE).sum() == 2 * 12
    assert module.chance == {"loss": pytest.approx(3 * np.log(4) / 12)}  # "10 log 8 / (T + 20)"
    monkeypatch.setattr("pipeline.data.recall.BLANK", "absent")
    with pytest.raises(ConfigError, match="every_position=true: expected a dataset with the token 'absent'"):
        RecallDataModule(tiny_recall_dataset, every_position=True)
