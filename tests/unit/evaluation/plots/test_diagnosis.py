"""Plots of a diagnosis show its results with the names of the runs."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from pipeline.data.batch import IGNORE, TokenBatch
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.plots.diagnosis import chart, diagnosis_picture
from pipeline.evaluation.plots.figure import rendered
from pipeline.models.lstm import LSTM
from pipeline.models.rnn import RNN
from pipeline.models.transformer import Transformer
from pipeline.tasks.language_model import LanguageModel

LENGTH = 40


def language_model(network):
    torch.manual_seed(4)
    return LanguageModel(network, 11)


def token_batch(ignored=0):
    tokens = torch.randint(11, (4, 13), generator=torch.Generator().manual_seed(5))
    targets = tokens[:, 1:].clone()
    targets[:, :ignored] = IGNORE
    return TokenBatch(tokens[:, :-1], targets, None, torch.arange(4), 0, 0, None)


def legends(part):
    """Return the names in each legend of a figure or of a part of it."""
    own = [[text.get_text() for text in legend.get_texts()] for legend in part.legends]
    return own + [names for each in part.subfigs for names in legends(each)]


@pytest.mark.numeric
def test_the_picture_of_one_run_shows_its_gates_and_its_attention():
    small, _ = diagnose(language_model(RNN(width=8)), token_batch())
    gated, _ = diagnose(language_model(LSTM(width=8)), token_batch())
    looking, maps = diagnose(language_model(Transformer(width=8, depth=2, heads=2)), token_batch())
    plain, both = diagnosis_picture({"": small}, {}), diagnosis_picture({"a": small, "_b $x$": gated}, {})
    assert [len(figure.axes) for figure in (plain, both)] == [2, 2]
    assert [len(axes.lines) for axes in both.axes] == [2, 2]
    assert (legends(plain), legends(both)) == ([], [["a", "_b $x$"]])
    upper, lower = plain.axes
    assert (upper.get_yscale(), lower.get_yscale()) == ("log", "linear")
    assert upper.lines[0].get_ydata().tolist() == small.gradient
    assert lower.lines[0].get_ydata().tolist() == small.loss

    [_, _, bars] = diagnosis_picture({"a": gated}, {}).axes
    assert [label.get_text() for label in bars.get_yticklabels()] == [*gated.gates]
    low, between, high = ([bar.get_width() for bar in group] for group in bars.containers)
    assert low == [shares["low"] for shares in gated.gates.values()]
    assert high == pytest.approx([shares["high"] for shares in gated.gates.values()])
    assert np.array([low, between, high]).sum(0) == pytest.approx(np.ones(len(gated.gates)))

    figure = diagnosis_picture({"": looking}, maps)
    assert [axes.get_ylabel() for axes in figure.axes[2:]] == ["0.attention", "1.attention"]
    [shown] = figure.axes[2].images
    first, second = np.split(shown.get_array().filled(np.nan), [13], 1)
    assert np.isnan(first[:, 12:]).all()  # the gap between two heads
    weights = maps["layers.0.attention"].numpy()
    np.testing.assert_allclose([first[:, :12], second], weights / weights.max(2, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 12])
def test_runs_are_named_below_their_lines(count):
    found, _ = diagnose(language_model(RNN(width=8)), token_batch())
    figure = diagnosis_picture({f"run-{number}-of-a-long-name": found for number in range(count)}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rendered(figure).height < 2 * 320 + 60 + 12 * count
    assert [len(names) for names in legends(figure)] == [count]
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == count
    boxes = [each.get_tightbbox() for each in (*figure.axes, *figure.subfigs[0].legends)]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


def test_a_line_has_a_gap_where_a_value_has_no_place():
    found, _ = diagnose(language_model(RNN(width=8)), token_batch())
    found = replace(found, gradient=[1.0, 0.0, math.inf, 4.0], loss=[None, 2.0, None, 3.0])
    upper, lower = diagnosis_picture({"": found}, {}).axes
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), [1.0, np.nan, np.inf, 4.0])
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), [np.nan, 2.0, np.nan, 3.0])
    assert upper.lines[0].get_marker() == "."  # shows a value between two gaps
    assert upper.get_ylim()[1] < 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rendered(upper.figure.figure)
        rendered(diagnosis_picture({"": replace(found, gradient=[0.0], loss=[None])}, {}))


def test_a_chart_has_a_line_and_a_name_for_each_curve():
    figure = chart("title", "delay", {"rnn": [(2, -1.0), (5, 0.5)], "lstm": [(2, 0.0), (5, 1.0)]})
    [axes] = figure.axes
    assert (axes.get_title(), axes.get_xlabel(), legends(figure)) == ("title", "delay", [["rnn", "lstm"]])
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[2, -1], [5, 0.5]], [[2, 0], [5, 1]]]
