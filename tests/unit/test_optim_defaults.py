"""Defaults of the schedules, and parameters that a strategy partitions."""

import pytest
import torch
from torch import nn

from pipeline.optim import EpochDecay, Plateau, WarmupCosine, full_tensor, parameter_groups


@pytest.mark.numeric
def test_schedules_have_their_documented_defaults() -> None:
    cosine = WarmupCosine()
    assert [cosine.scale(step, 1100, 10) for step in (0, 49, 99, 100)] == [0.01, 0.5, 1.0, 1.0]
    assert cosine.scale(1100, 1100, 10) == pytest.approx(0.1, rel=1e-12)
    decay = EpochDecay()  # Zaremba et al. 2014: divided by 1.2 after each epoch from the sixth on
    assert [decay.scale(step, 0, 100) for step in (599, 600)] == [1.0, pytest.approx(1 / 1.2)]
    plateau = Plateau()
    assert (plateau.factor, plateau.patience) == (0.25, 1)
    assert plateau.state_dict() == {"current": 1.0, "best": float("inf"), "worse": 0}


def test_parameters_with_two_or_more_axes_are_matrices() -> None:
    module = nn.Module()
    module.gain, module.frozen = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2, 2), requires_grad=False)
    module.kernel, module.divided = nn.Parameter(torch.ones(2, 2, 2)), nn.Parameter(torch.ones(6))
    module.divided.ds_shape = torch.Size([2, 3])  # the shape of the whole parameter under ZeRO 3
    matrices, vectors = parameter_groups(module)
    assert [id(each) for each in matrices["params"]] == [id(module.kernel), id(module.divided)]
    assert [id(each) for each in vectors["params"]] == [id(module.gain)]
    assert full_tensor(module.gain) is module.gain
