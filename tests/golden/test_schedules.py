"""Learning rates are unchanged between versions."""

from copy import deepcopy
from inspect import isabstract, isclass

import pytest

from pipeline import optim
from pipeline.optim import EpochDecay, Plateau, Schedule, WarmupCosine, WarmupStableDecay, total_steps
from tests.golden.recorded import Golden

STEPS = [0, 1, 2, 9, 10, 11, 49, 50, 98, 99, 100, 101, 250, 499, 500, 777, 998, 999, 1000, 1001, 5000]
SCHEDULES: dict[str, Schedule] = {
    "WarmupCosine": WarmupCosine(),
    "WarmupCosine with other values": WarmupCosine(warmup_steps=10, final_share=0.0),
    "WarmupCosine without warm-up": WarmupCosine(warmup_steps=0),
    "WarmupStableDecay": WarmupStableDecay(),
    "EpochDecay": EpochDecay(),
    "EpochDecay with other values": EpochDecay(constant_epochs=1, factor=0.5),
    "Plateau": Plateau(),
    "Plateau with other values": Plateau(factor=0.5, patience=3),
}
LOSSES = [5.0, 4.0, 4.0, 3.5, 3.6, 3.7, 3.4, 3.5, 3.5, 3.5, 3.5, 3.5, 3.3, 3.4, 3.4, 3.4, 3.4, 3.4]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_values_of_a_schedule_are_unchanged(golden: Golden, name: str) -> None:
    schedule = deepcopy(SCHEDULES[name])
    values = {
        f"of {total} steps, {per_epoch} an epoch": [schedule.scale(step, total, per_epoch) for step in STEPS]
        for total, per_epoch in ((1000, 100), (1000, 7), (0, 100), (60, 100))
    }
    golden("schedules", name, values, within=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_effect_of_validation_on_a_schedule_is_unchanged(golden: Golden, name: str) -> None:
    schedule, found = deepcopy(SCHEDULES[name]), []
    for loss in LOSSES:
        schedule.observe(loss)
        found.append([schedule.scale(20, 1000, 100), *sorted(schedule.state_dict().items())])
    golden("schedules", f"{name} after validations", found, within=1e-12)


def test_every_schedule_is_recorded() -> None:
    kinds = {type(schedule) for schedule in SCHEDULES.values()}
    assert kinds == {
        kind
        for kind in vars(optim).values()
        if isclass(kind) and issubclass(kind, Schedule) and not isabstract(kind) and kind.__module__ == optim.__name__
    }


def test_the_length_of_a_run_is_unchanged(golden: Golden) -> None:
    limits = [(None, -1), (-1, 70), (3, -1), (3, 70), (3, 20), (0, 5), (None, 9)]
    golden("schedules", "total steps of 17 an epoch", [total_steps(*limit, 17) for limit in limits])
