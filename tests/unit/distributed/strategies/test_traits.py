"""Every strategy has the traits that training depends on."""

from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from pipeline.distributed.strategies.data_parallel import DataParallel
from pipeline.distributed.strategies.fully_sharded import FullySharded
from pipeline.distributed.strategies.traits import StrategyTraits, traits
from pipeline.distributed.strategies.zero import ZeRO


@pytest.mark.parametrize(
    ("strategy", "divides_model", "owns_gradients"),
    [(DataParallel, False, False), (FullySharded, True, False), (ZeRO, True, True)],
)
def test_a_strategy_has_its_own_traits(
    strategy: type[StrategyTraits], divides_model: bool, owns_gradients: bool
) -> None:
    assert (strategy.divides_model, strategy.owns_gradients) == (divides_model, owns_gradients)


def test_a_strategy_of_lightning_has_the_default_traits() -> None:
    found = traits(Mock(spec=pl.Trainer, strategy=object()))
    assert (found.divides_model, found.owns_gradients, found.dropped_step) == (False, False, False)


class Layer(pl.LightningModule, nn.Linear):
    """A task of one layer."""

    def __init__(self) -> None:
        nn.Linear.__init__(self, 2, 1)


def test_a_skipped_step_has_no_gradients() -> None:
    module = Layer()
    module.weight.grad = torch.ones(1, 2)
    StrategyTraits().refuse_step(module)
    assert module.bias.grad is None
    assert module.weight.grad is None
