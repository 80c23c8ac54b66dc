"""Tests of the benchmark suite of `unroll architectures`, on networks with known results."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import cli
from pipeline.commands.architectures import measure
from pipeline.commands.architectures.measure import (
    ArchitectureResults,
    accuracy,
    architectures_table,
    gradient_error,
    networks,
    order_sensitivity,
    recall_batch,
    train_recall,
)
from pipeline.dataset.recall import Association, Copy
from pipeline.models.bag_of_words import BagOfWords
from pipeline.models.lstm import LSTM
from pipeline.models.ngram import NGram
from pipeline.models.transformer import Transformer


def seeded(make, **options):
    torch.manual_seed(1)
    return make(width=16, **options).eval()


def test_the_networks_of_all_language_models_are_found():
    expected = {"NGram", "BagOfWords", "RNN", "LSTM", "GRU", "ConvNet", "LinearRecurrence", "Transformer"}
    assert expected <= set(networks())
    assert "PixelCNN" not in networks()


def test_order_matters_to_all_but_a_bag_of_words_and_a_bigram():
    assert order_sensitivity(seeded(BagOfWords)) < 1e-5
    assert order_sensitivity(seeded(NGram, order=2)) == 0.0
    assert order_sensitivity(seeded(NGram, order=8)) > 0.1
    assert order_sensitivity(seeded(LSTM)) > 0.01


class Stepped(nn.Module):
    """A network whose output is partly detached: autograd returns half of its derivative."""

    def __init__(self):
        super().__init__()
        self.width, self.scale = 4, nn.Parameter(torch.tensor(1.5))

    def forward(self, inputs, state=None):
        return inputs * self.scale + (inputs * self.scale).detach(), None


@pytest.mark.numeric
def test_a_wrong_derivative_is_found():
    assert gradient_error(seeded(LSTM).double()) < 1e-6
    assert gradient_error(Stepped().double()) == pytest.approx(1.0, abs=1e-6)  # twice autograd's gradient


@pytest.mark.numeric
def test_answers_are_expected_where_eos_is_read():
    task = Copy(5, 2, 3)
    inputs, answers = recall_batch(task, np.random.default_rng(1), 4)
    assert inputs.shape == (4, 9)
    assert inputs[:, 7:].eq(len(task.words)).all()
    torch.testing.assert_close(inputs[:, :2], answers)


@pytest.mark.learns
def test_a_bag_of_words_recalls_values_without_their_keys(seed, record_property):
    options = Namespace(steps=150, seed=seed, width=16)
    bag = train_recall(seeded(BagOfWords), lambda _: Association(0, 4, 8), options)
    right = accuracy(bag, Association(0, 4, 8))
    record_property("result", right)
    assert 0.17 < right < 0.36  # one in four; ten seeds, on the same data: 0.203 ± 0.008


@pytest.mark.learns
def test_accuracy_beyond_the_context_window_is_chance(seed, record_property):
    options = Namespace(steps=60, seed=seed, width=16)
    near = train_recall(seeded(NGram, order=6), lambda chance: Copy(int(chance.integers(1, 4)), 1, 4), options)
    seen, unseen = accuracy(near, Copy(3, 1, 4)), accuracy(near, Copy(9, 1, 4))
    record_property("seen", seen)
    record_property("unseen", unseen)
    assert seen > 0.95  # ten seeds: 1 ± 0
    assert unseen < 0.5  # ten seeds: 0.19 ± 0.01


@pytest.mark.slow
def test_the_command_prints_a_row_for_each(capsys, monkeypatch):
    monkeypatch.setattr(measure, "DELAYS", (1, 2))
    monkeypatch.setattr(measure, "LONG", 150)
    monkeypatch.setattr(measure, "TOKENS", 512)
    assert cli.main(["architectures", "NGram", "Transformer", "--width", "16", "--steps", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| architecture", "| NGram", "| Transformer"]
    count = sum(parameter.numel() for parameter in Transformer(width=16).parameters())
    assert rows[2][1] == f"{count:,}"
    assert {len(row) for row in rows} == {9}


def test_an_unknown_name_is_one_line(capsys):
    assert cli.main(["architectures", "LSMT"]) == 2
    assert "NAME=LSMT: not a network. Choose from BagOfWords" in capsys.readouterr().err


def test_the_table_shows_the_measurements():
    one = ArchitectureResults(1234, 0.5, 2e-9, 99.6, 64, 12.5, (0.1, 0.25), (1000.0, 2000.0))
    assert (
        list(architectures_table({"A": one}))[2]
        == "| A | 1,234 | 0.5 | 2e-09 | 100 | 64 | 12 | 0.10 and 0.25 | 1,000 and 2,000 |"
    )
