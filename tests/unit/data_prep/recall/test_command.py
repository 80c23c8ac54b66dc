"""Training reads what `unroll prepare recall` writes."""

import json

import numpy as np
import pytest

from data_prep.recall import command as recall
from pipeline.data.recall import RecallDataModule
from pipeline.data.series import SeriesDataModule
from pipeline.dataset.manifest import Dataset
from pipeline.errors import ConfigError

FEW = ["--train", "12", "--validation", "4", "--test", "4"]


def prepare(folder, task, *options):
    assert recall.main([task, *FEW, *options, "--output", str(folder)]) == 0
    return folder


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--seed: expected an integer of at least 0, got -1"):
        prepare(tmp_path / "data", "copy", "--seed", "-1")


@pytest.mark.parametrize("task", ["copy", "selective-copy", "association"])
def test_questions_are_read_as_they_were_drawn(task, tmp_path, capsys):
    folder = prepare(tmp_path / "data", task, "--length", "6", "--items", "3", "--symbols", "4")
    printed = capsys.readouterr().out
    assert "without memory, loss: 1.3863" in printed
    assert "without memory, accuracy: 25.0000" in printed
    Dataset.open(folder).verify()
    module = RecallDataModule(folder)
    split = module.split("validation")
    kind = recall.SYMBOLS[task](6, 3, 4)
    for row in range(4):
        question, answer = kind.draw(np.random.default_rng((1, 1, row)))
        text = module.tokenizer.decode(split.value("source", row).tolist())
        assert text.split() == [kind.words[one] for one in question]
        assert split.references(row) == [" ".join(kind.words[one] for one in answer)]


def test_a_sample_does_not_depend_on_the_number_of_samples(tmp_path):
    few, many = (prepare(tmp_path / count, "copy", "--train", count) for count in ("12", "20"))
    targets = [
        [RecallDataModule(folder).split("train").target(n).tolist() for n in range(12)] for folder in (few, many)
    ]
    assert targets[0] == targets[1]


def test_each_sample_of_adding_is_one_window_of_a_series(tmp_path, capsys):
    folder = prepare(tmp_path / "data", "adding", "--length", "9")
    assert "without memory, mse: 0.1667" in capsys.readouterr().out
    module = SeriesDataModule(folder, context=9, horizon=1)
    for name, count in (("train", 12), ("validation", 4), ("test", 4)):
        windows = module.samples(name)
        assert len(windows) == count
        batch = windows.batch(np.arange(count))
        marks = batch.known[:, :9, 0]
        assert marks.sum(1).tolist() == [2.0] * count
        np.testing.assert_allclose((batch.context * marks).sum(1), batch.targets[:, 0], rtol=1e-6)
    assert len(json.dumps(module.dataset.manifest)) < 5000  # The manifest does not grow with the samples.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adding", "--items", "3"], "expected --length of at least 2 and no other size, got --length=600, --items=3"),
        (["adding", "--length", "1"], "expected --length of at least 2 and no other size, got --length=1"),
        (["association", "--items", "20"], "items=20: expected at most symbols=16 distinct keys"),
        (["copy", "--symbols", "1"], "symbols=1"),
    ],
)
def test_invalid_sizes_leave_nothing_behind(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        recall.main([*arguments, "--output", str(tmp_path / "data")])
    assert list(tmp_path.iterdir()) == []
