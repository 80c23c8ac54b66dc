"""Learning rates against independent formulas, and which parameters are decayed."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from pipeline.errors import ConfigError
from pipeline.optim import (
    EpochDecay,
    Plateau,
    Schedule,
    WarmupCosine,
    WarmupStableDecay,
    freeze,
    frozen_line,
    gradient_norm,
    parameter_groups,
    total_steps,
)
from pipeline.optim.recent_losses import RecentLosses

LOSSES = [5.0, 4.0, 4.0, 3.9, 4.1, 3.95, 3.8, 4.0, 3.8, 3.9, 3.9, 3.9, 3.9, 3.9, 3.7, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9]


@pytest.mark.numeric
@pytest.mark.parametrize(("warmup", "share", "total"), [(100, 0.1, 1000), (10, 0.0, 64), (1, 0.5, 7), (0, 0.25, 40)])
def test_warm_up_is_linear_and_is_followed_by_half_a_cosine(warmup: int, share: float, total: int) -> None:
    """(1 + cos x) / 2 = cos²(x / 2), and the closed form of torch's own schedule after the warm-up."""
    schedule = WarmupCosine(warmup, share)
    reference = CosineAnnealingLR(optimizer := SGD([nn.Parameter(torch.zeros(1))], 1.0), total - warmup, share)
    for step in range(warmup):
        assert schedule.scale(step, total, 9) == pytest.approx((step + 1) / warmup, rel=1e-12)
    for step in range(warmup, total + 1):
        half = math.cos(math.pi * (step - warmup) / (total - warmup) / 2) ** 2
        assert schedule.scale(step, total, 9) == pytest.approx(share * (1 - half) + half, rel=1e-12)
        assert schedule.scale(step, total, 9) == pytest.approx(reference.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimizer.step()
        reference.step()


@pytest.mark.numeric
def test_a_cosine_begins_at_the_peak_and_ends_at_its_share() -> None:
    schedule = WarmupCosine(100, 0.1)
    assert [schedule.scale(step, 1000, 9) for step in (99, 100)] == [1.0, 1.0]
    assert schedule.scale(550, 1000, 9) == pytest.approx(0.55)
    assert [schedule.scale(step, 1000, 9) for step in (1000, 1001, 5000)] == pytest.approx([0.1] * 3)


def test_without_a_last_step_the_peak_is_kept() -> None:
    assert [WarmupCosine(4).scale(step, 0, 9) for step in (0, 2, 3, 4, 10_000)] == [0.25, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.numeric
def test_a_run_shorter_than_its_warm_up_never_leaves_it() -> None:
    assert [WarmupCosine(10, 0.1).scale(step, 5, 9) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert WarmupCosine(10, 0.1).scale(10, 10, 9) == 1.0
    assert WarmupCosine(10, 0.1).scale(11, 10, 9) == pytest.approx(0.1)


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("constant", "factor", "per_epoch"), [(6, 1 / 1.2, 13), (1, 0.5, 1), (0, 0.9, 4), (14, 0.87, 5)]
)
def test_a_rate_that_decays_by_epoch_is_multiplied_once_in_each(constant: int, factor: float, per_epoch: int) -> None:
    schedule, expected = EpochDecay(constant, factor), 1.0
    for epoch in range(1, 25):  # counted from 1
        expected *= factor if epoch > constant else 1.0
        for step in (per_epoch * (epoch - 1), per_epoch * epoch - 1):
            assert schedule.scale(step, 0, per_epoch) == pytest.approx(expected, rel=1e-12)


@pytest.mark.numeric
def test_a_rate_can_be_divided_after_each_ten_epochs() -> None:
    """The rule of the sequential MNIST experiments of Bai et al.: at the ends of epochs 10, 20, ..."""
    schedule = EpochDecay(10, 0.1, every=10)
    rates = [schedule.scale(epoch * 7 + 6, 0, 7) for epoch in range(31)]
    assert rates == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10 + [0.001])
    with pytest.raises(ValueError, match="every=0: expected at least 1"):
        EpochDecay(every=0)


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("factor", "patience", "threshold", "cooldown"),
    [(0.25, 1, 0.0, 0), (0.5, 0, 0.0, 0), (0.1, 3, 0.0, 0), (0.25, 1, 0.02, 0), (0.5, 0, 0.0, 2), (0.5, 1, 0.01, 3)],
)
def test_a_plateau_is_detected_where_torch_detects_it(
    factor: float, patience: int, threshold: float, cooldown: int
) -> None:
    schedule = Plateau(factor, patience, threshold, cooldown)
    optimizer = SGD([nn.Parameter(torch.zeros(1))], 1.0)
    reference = ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=threshold, cooldown=cooldown, eps=0.0
    )
    assert schedule.scale(0, 100, 9) == 1.0
    for loss in LOSSES:
        schedule.observe(loss)
        reference.step(loss)
        assert schedule.scale(0, 100, 9) == pytest.approx(reference.get_last_lr()[0], rel=1e-12)
        assert schedule.scale(99, 0, 1) == schedule.scale(0, 100, 9)
    assert schedule.current < factor  # lowered more than once


@pytest.mark.parametrize("cut", range(len(LOSSES)))
@pytest.mark.parametrize("made", [partial(Plateau, 0.5, 1, cooldown=2), partial(RecentLosses, 0.5, 2, 1)])
def test_a_loaded_schedule_continues_as_the_saved_one(made: Callable[[], Schedule], cut: int) -> None:
    saved, loaded = made(), made()
    for loss in LOSSES[:cut]:
        saved.observe(loss)
    loaded.load_state_dict(saved.state_dict())
    for loss in LOSSES[cut:]:
        saved.observe(loss)
        loaded.observe(loss)
        assert loaded.state_dict() == saved.state_dict()
        assert loaded.scale(0, 0, 1) == saved.scale(0, 0, 1)


@pytest.mark.numeric
@pytest.mark.parametrize(("factor", "window", "constant"), [(0.1, 3, 10), (0.5, 5, 5), (0.5, 1, 0)])
def test_the_rate_follows_recent_losses_as_in_the_code_of_the_paper(factor: float, window: int, constant: int) -> None:
    """`if epoch > constant and loss > max(losses[-window:]): lr *= factor`, then `losses.append(loss)`."""
    schedule, rate, losses = RecentLosses(factor, window, constant), 1.0, list[float]()
    for epoch, loss in enumerate([*LOSSES, 4.2, 4.1, 4.3, 3.0], 1):
        if epoch > constant and losses and loss > max(losses[-window:]):
            rate *= factor
        losses.append(loss)
        schedule.observe(loss)
        assert schedule.scale(epoch, 0, 1) == pytest.approx(rate, rel=1e-12)
    assert rate < 1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (partial(Plateau, factor=1.0), "factor=1.0"),
        (partial(Plateau, threshold=-0.1), "threshold=-0.1"),
        (partial(Plateau, cooldown=-1), "cooldown=-1"),
        (partial(RecentLosses, factor=0.0), "factor=0.0"),
        (partial(RecentLosses, window=0), "window=0"),
    ],
)
def test_invalid_options_of_a_schedule_raise_an_error(made: Callable[[], Schedule], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made()


@pytest.mark.parametrize("schedule", [WarmupCosine(5), EpochDecay(2)], ids=lambda each: type(each).__name__)
def test_other_schedules_ignore_validation(schedule: Schedule) -> None:
    before = [schedule.scale(step, 30, 4) for step in range(30)]
    for loss in LOSSES:
        schedule.observe(loss)
    assert [schedule.scale(step, 30, 4) for step in range(30)] == before
    assert schedule.state_dict() == {}


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(None, -1, 0), (-1, -1, 0), (3, -1, 51), (None, 9, 9), (-1, 9, 9), (3, 50, 50), (3, 51, 51), (3, 52, 51)],
)
def test_a_run_ends_at_the_first_of_its_limits(epochs: int | None, steps: int, expected: int) -> None:
    assert total_steps(epochs, steps, 17) == expected


def test_matrices_are_decayed_and_vectors_are_not_each_in_the_order_of_the_module() -> None:
    module = nn.Sequential(nn.Embedding(5, 3), nn.LayerNorm(3), nn.Conv1d(3, 3, 2), nn.Linear(3, 2), nn.Linear(2, 2))
    module[3].requires_grad_(False)
    matrices, vectors = parameter_groups(module)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    assert [names[id(each)] for each in matrices["params"]] == ["0.weight", "2.weight", "4.weight"]
    assert [names[id(each)] for each in vectors["params"]] == ["1.weight", "1.bias", "2.bias", "4.bias"]
    assert "weight_decay" not in matrices
    assert vectors["weight_decay"] == 0.0


def test_a_group_without_parameters_is_left_out() -> None:
    assert [list(group) for group in parameter_groups(nn.Linear(2, 2, bias=False))] == [["params"]]
    assert [list(group) for group in parameter_groups(nn.LayerNorm(2))] == [["params", "weight_decay"]]


@pytest.mark.numeric
def test_the_norm_of_a_gradient_is_over_all_parameters_that_have_one() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    module[0].weight.grad, module[0].bias.grad = torch.tensor([[1.0, 2.0], [2.0, 4.0]]), torch.tensor([8.0, 10.0])
    assert gradient_norm(module.parameters()).item() == pytest.approx(math.sqrt(1 + 4 + 4 + 16 + 64 + 100))


def test_a_share_of_the_steps_replaces_the_number_of_warm_up_steps() -> None:
    by_share, by_steps = WarmupCosine(warmup_steps=7, warmup_share=0.05), WarmupCosine(warmup_steps=50)
    assert [by_share.scale(step, 1000, 9) for step in range(1000)] == [by_steps.scale(s, 1000, 9) for s in range(1000)]
    assert by_share.scale(0, 0, 9) == 1 / 7  # the last step is not known
    with pytest.raises(ValueError, match=r"warmup_share=1\.0: expected a number in"):
        WarmupCosine(warmup_share=1.0)


def test_a_warm_up_longer_than_the_run_is_a_warning() -> None:
    assert "160 steps and warmup_steps=200" in str(WarmupCosine(200).warning(160))
    assert WarmupCosine(200).warning(201) is WarmupCosine(200).warning(0) is EpochDecay().warning(1) is None


def test_frozen_parameters_are_in_no_group() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    assert frozen_line(module) == ""
    freeze(module, ["0.*", "*.bias"])
    assert [group["params"] for group in parameter_groups(module)] == [[module[1].weight]]
    assert frozen_line(module) == "13 of 25 parameters"


def test_a_shared_parameter_is_frozen_by_any_of_its_names() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    freeze(module, ["1.weight"])
    assert not module[0].weight.requires_grad


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["0.*", "1.wieght"], "--freeze=1.wieght: .* matches none. Near names: 1.weight"),
        (["1"], r"--freeze=1: .* Near names: 1\.\*$"),
        (["*"], r"--freeze=\*: expected parameters to train, got none"),
    ],
)
def test_a_pattern_that_matches_nothing_or_everything_is_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        freeze(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), patterns)


def test_a_decay_ends_at_its_own_step_whatever_the_length_of_the_run() -> None:
    kept, plain = WarmupCosine(4, 0.1, decay_steps=20), WarmupCosine(4, 0.1)
    for total in (20, 50, 0):  # 0: limited by time
        assert [kept.scale(step, total, 9) for step in range(20)] == [plain.scale(step, 20, 9) for step in range(20)]
        assert {kept.scale(step, total, 9) for step in range(20, 60)} == {0.1}
    assert "20 steps and warmup_steps=30" in str(WarmupCosine(30, decay_steps=20).warning(100))


@pytest.mark.numeric
def test_a_second_warm_up_begins_at_the_rate_that_is_reached_and_ends_with_the_run() -> None:
    schedule, plain = WarmupCosine(4, 0.1, rewarm_step=20), WarmupCosine(4, 0.1)
    found = [schedule.scale(step, 50, 9) for step in range(51)]
    assert found[:20] == [plain.scale(step, 20, 9) for step in range(20)]
    assert found[20:24] == pytest.approx([0.325, 0.55, 0.775, 1.0])
    assert found[24:] == [plain.scale(step, 30, 9) for step in range(4, 31)]
    early = WarmupCosine(4, 0.1, decay_steps=20, rewarm_step=12)  # half of the first decay is done
    assert early.scale(12, 50, 9) == pytest.approx(0.55 + 0.45 / 4)
    with pytest.raises(ValueError, match="rewarm_step=0: expected at least 1"):
        WarmupCosine(rewarm_step=0)


def test_the_choices_for_a_longer_run_are_options_that_were_not_given() -> None:
    assert list(WarmupCosine().choices(12, 20)) == ["decay_steps=20", "rewarm_step=12"]
    assert WarmupCosine(decay_steps=20).choices(12, 20) == WarmupCosine(rewarm_step=2).choices(12, 20) == {}
    assert list(WarmupStableDecay().choices(12, 20)) == ["rewarm_step=12"]  # the old decay ends at a rate of 0
    assert WarmupCosine().choices(12, 0) == EpochDecay().choices(12, 20) == {}


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("warmup", "share", "decay", "total"), [(4, 0.0, 0.2, 20), (0, 0.1, 0.5, 30), (5, 0.0, 1.0, 25)]
)
def test_a_stable_rate_decays_linearly_at_the_end(warmup: int, share: float, decay: float, total: int) -> None:
    schedule = WarmupStableDecay(decay, share, warmup_steps=warmup)
    steps = min(round(decay * total), total - warmup)
    for step in range(warmup):
        assert schedule.scale(step, total, 9) == pytest.approx((step + 1) / warmup, rel=1e-12)
    for step in range(warmup, total - steps + 1):
        assert schedule.scale(step, total, 9) == 1.0
    for step in range(total - steps, total):
        left = (total - step) / steps
        assert schedule.scale(step, total, 9) == pytest.approx(share + (1 - share) * left, rel=1e-12)
    assert schedule.scale(total, total, 9) == schedule.scale(total + 7, total, 9) == pytest.approx(share)
    assert {schedule.scale(step, 0, 9) for step in (warmup, 10, 1000)} == {1.0}  # limited by time


@pytest.mark.numeric
def test_a_longer_run_has_the_same_rate_until_its_decay() -> None:
    schedule = WarmupStableDecay(0.25, warmup_steps=4)
    short, long = ([schedule.scale(step, total, 9) for step in range(40)] for total in (40, 100))
    assert short[:31] == long[:31]
    assert short[31] < long[31] == 1.0
    again = WarmupStableDecay(0.25, warmup_steps=4, rewarm_step=40)  # a second cycle of 60 steps
    assert [again.scale(step, 100, 9) for step in range(40)] == short
    assert [again.scale(step, 100, 9) for step in (40, 43, 84, 85, 99)] == pytest.approx([0.25, 1, 1, 1, 1 / 15])
    with pytest.raises(ValueError, match=r"decay_share=1\.5: expected a number in"):
        WarmupStableDecay(1.5)
    with pytest.raises(ValueError, match="rewarm_step=0: expected at least 1"):
        WarmupStableDecay(rewarm_step=0)
