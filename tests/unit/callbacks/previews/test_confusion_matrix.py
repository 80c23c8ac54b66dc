"""A confusion matrix is drawn with every count, coloured by its share of the true class."""

import re

from pipeline.callbacks.previews.confusion_matrix import matrix


def test_every_count_has_its_cell() -> None:
    drawing = matrix(["<no>", "yes"], [[3, 1], [0, 5]])
    assert re.findall(r">([^<>]+)</text>", drawing) == ["&lt;no&gt;", "yes", "&lt;no&gt;", "3", "1", "yes", "0", "5"]
    assert re.findall(r"rgb\((\d+),", drawing) == ["64", "191", "255", "0"]
