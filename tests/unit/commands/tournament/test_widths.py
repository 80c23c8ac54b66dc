"""The width for a number of parameters equals the result of an exhaustive search."""

import pytest

from pipeline.commands.tournament.widths import nearest_width
from pipeline.errors import ConfigError
from pipeline.models.gru import GRU
from pipeline.models.lstm import LSTM
from pipeline.models.ngram import NGram
from pipeline.models.transformer import Transformer

NETWORKS = {
    "lstm": (lambda width: LSTM(width=width), 1),
    "gru": (lambda width: GRU(width=width, depth=1), 1),
    "ngram": (lambda width: NGram(width=width, hidden=30), 1),
    "transformer": (lambda width: Transformer(width=width, depth=1, heads=3), 6),  # heads of an even size
}


def counter(name):
    import torch

    def count(width):
        try:
            with torch.device("meta"):
                return sum(parameter.numel() for parameter in NETWORKS[name][0](width).parameters())
        except ValueError as error:
            raise ConfigError(str(error)) from error

    return count


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_grow_with_the_width_and_the_nearest_is_found(name):
    count, unit = counter(name), NETWORKS[name][1]
    counts = {width: count(width) for width in range(unit, 96, unit)}
    assert list(counts.values()) == sorted(set(counts.values()))
    for target in (500, 5_000, 12_345):
        assert nearest_width(target, count) == min(counts, key=lambda width: abs(counts[width] - target))


def test_every_width_is_found_by_its_own_number_of_parameters():
    assert [nearest_width(7 * width**2 + width, lambda width: 7 * width**2 + width) for width in range(1, 60)] == [
        *range(1, 60)
    ]


def test_the_narrower_of_two_that_are_equally_near():
    assert nearest_width(15, lambda width: 10 * width) == 1


def test_the_error_of_a_network_that_accepts_no_width_is_kept():
    def count(width):
        raise ConfigError("heads=5 and nothing else")

    with pytest.raises(ConfigError, match="heads=5 and nothing else"):
        nearest_width(1000, count)
