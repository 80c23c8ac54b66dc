"""Learning rates over the steps, weight decay on matrices alone, and the norm of all gradients."""

import math

import pytest
import torch
from torch import nn

from pipeline.optim import (
    EpochDecay,
    Plateau,
    Schedule,
    WarmupCosine,
    gradient_norm,
    parameter_groups,
    total_steps,
    whole,
)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 1 / 4), (2, 3 / 4), (3, 1.0), (4, 1.0), (14, None), (24, None), (30, None), (44, 0.2), (45, 0.2), (99, 0.2)],
)
def test_half_a_cosine_follows_the_warm_up(step: int, share: float | None) -> None:
    if share is None:  # the formula of the paper, from the peak 1.0 at step 4 to 0.2 at step 44
        share = 0.2 + 0.5 * (1.0 - 0.2) * (1 + math.cos((step - 4) / 40 * math.pi))
    assert WarmupCosine(warmup_steps=4, final_share=0.2).scale(step, 44, 10) == pytest.approx(share, rel=1e-12)


def test_the_middle_of_the_cosine_lies_halfway() -> None:
    assert WarmupCosine(warmup_steps=4, final_share=0.2).scale(24, 44, 10) == pytest.approx(0.6, rel=1e-12)


def test_warm_up_and_cosine_have_their_documented_defaults() -> None:
    schedule = WarmupCosine()
    assert [schedule.scale(step, 1100, 10) for step in (0, 49, 99, 100)] == [0.01, 0.5, 1.0, 1.0]
    assert schedule.scale(1100, 1100, 10) == pytest.approx(0.1, rel=1e-12)


def test_a_run_that_ends_within_the_warm_up_divides_by_nothing() -> None:
    schedule = WarmupCosine(warmup_steps=4, final_share=0.2)
    assert [schedule.scale(step, 4, 10) for step in (3, 4, 5)] == pytest.approx([1.0, 1.0, 0.2])
    assert schedule.scale(4, 0, 10) == 1.0
    assert schedule.scale(500, 0, 10) == 1.0
    assert schedule.scale(5, 1, 10) == pytest.approx(0.2)


@pytest.mark.parametrize(("step", "scale"), [(0, 1.0), (29, 1.0), (30, 0.5), (39, 0.5), (40, 0.25), (59, 0.125)])
def test_each_epoch_after_the_constant_ones_multiplies_the_rate(step: int, scale: float) -> None:
    assert EpochDecay(constant_epochs=3, factor=0.5).scale(step, 0, 10) == scale


def test_the_decay_by_epochs_has_the_values_of_the_paper() -> None:
    schedule = EpochDecay()  # Zaremba et al. 2014: after 6 epochs divided by 1.2 after each
    assert schedule.scale(599, 0, 100) == 1.0
    assert schedule.scale(600, 0, 100) == pytest.approx(1 / 1.2)
    assert schedule.scale(800, 0, 100) == pytest.approx(1 / 1.2**3)


def scales(schedule: Schedule, losses: list[float]) -> list[float]:
    found = []
    for loss in losses:
        schedule.observe(loss)
        found.append(schedule.scale(0, 0, 1))
    return found


def test_a_plateau_is_more_validations_without_a_new_best_than_patience() -> None:
    assert Plateau().scale(7, 0, 1) == 1.0
    losses = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 2.0, 2.5, 2.5, 2.5, 2.5]
    assert scales(Plateau(), losses) == [1, 1, 1, 0.25, 0.25, 0.25, 0.25, 0.25, 0.0625, 0.0625, 0.015625]
    assert scales(Plateau(factor=0.5, patience=0), [5.0, 5.0, 4.0, 4.5]) == [1.0, 0.5, 0.5, 0.25]


def test_a_plateau_continues_from_its_state() -> None:
    losses = [5.0, 4.0, 4.0, 4.5, 4.2, 3.0, 3.5, 3.2]
    first, second = Plateau(), Plateau()
    half = scales(first, losses[:3])
    second.load_state_dict(first.state_dict())
    assert half + scales(second, losses[3:]) == scales(Plateau(), losses)
    assert first.state_dict() == {"current": 1.0, "best": 4.0, "worse": 1}


def test_schedules_that_depend_on_the_step_alone_have_no_state() -> None:
    schedule = WarmupCosine()
    schedule.observe(3.0)
    assert schedule.state_dict() == EpochDecay().state_dict() == {}


@pytest.mark.parametrize(
    ("epochs", "steps", "total"),
    [(None, -1, 0), (-1, -1, 0), (3, -1, 51), (None, 1, 1), (-1, 70, 70), (3, 70, 51), (3, 20, 20), (None, 0, 0)],
)
def test_a_run_ends_at_the_first_of_its_limits(epochs: int | None, steps: int, total: int) -> None:
    assert total_steps(epochs, steps, 17) == total


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.gain = nn.Parameter(torch.ones(()))
        self.kernel = nn.Parameter(torch.ones(2, 2, 2))
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.flat = nn.Parameter(torch.ones(6))


def test_weight_decay_shrinks_matrices_and_no_vectors() -> None:
    module = Layers()
    matrices, vectors = parameter_groups(module)
    assert {id(each) for each in matrices["params"]} == {id(module.linear.weight), id(module.kernel)}
    assert {id(each) for each in vectors["params"]} == {id(module.linear.bias), id(module.gain), id(module.flat)}
    assert "weight_decay" not in matrices
    assert vectors["weight_decay"] == 0.0


def test_a_group_without_parameters_is_left_out() -> None:
    assert [group.keys() for group in parameter_groups(nn.Linear(2, 2, bias=False))] == [{"params"}]
    assert [group["weight_decay"] for group in parameter_groups(nn.LayerNorm(3))] == [0.0]


def test_a_parameter_that_zero_divided_has_the_shape_of_the_whole() -> None:
    module = Layers()
    module.flat.ds_shape = torch.Size([2, 3])
    matrices, _ = parameter_groups(module)
    assert any(each is module.flat for each in matrices["params"])


def test_the_norm_is_that_of_all_gradients_together() -> None:
    module = Layers()
    module.linear.weight.grad = torch.full((2, 3), 2.0)
    module.gain.grad = torch.tensor(5.0)
    assert gradient_norm(module).item() == pytest.approx(7.0)  # the root of 6 * 4 + 25
    assert whole(module.gain) is module.gain
