"""A run on two processes reaches the same result after kills of either process anywhere in a step."""

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.runs import journal
from pipeline.tasks.language_model import LanguageModel
from tests.distributed.fixture_types import Fit, State
from tests.sweep import also

KILLS = 20


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, float], None]:
    """`kill(RANK, STEPS, SECONDS)`: in the next attempts, kills the process SECONDS after it began STEPS steps."""
    straight = LanguageModel.training_step
    target = {"rank": -1, "steps": 0, "seconds": 0.0}

    def training_step(self: LanguageModel, batch: object, batch_idx: int) -> torch.Tensor:
        self.begun = getattr(self, "begun", 0) + 1  # type: ignore[assignment, operator]
        if self.trainer.global_rank == target["rank"] and self.begun == target["steps"]:
            threading.Timer(target["seconds"], os.kill, (os.getpid(), signal.SIGKILL)).start()
        return straight(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModel, "training_step", training_step)
    return lambda rank, steps, seconds: target.update(rank=rank, steps=steps, seconds=seconds)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, *also(0)])
def test_a_run_killed_ten_times_anywhere_ends_like_the_straight_one(
    fit: Fit, state: State, kill: Callable[[int, int, float], None], rank: int
) -> None:
    chance = random.Random(rank)
    keys = ["trainer.devices", 2, "trainer.max_steps", 60, "checkpoints.every_steps", 1]
    assert fit("straight", *keys) == 0
    for _ in range(KILLS // 2):
        kill(rank, chance.randint(1, 5), chance.uniform(0.0, 0.03))  # in a step, a validation, or a save
        assert fit("killed", *keys) == 128 + signal.SIGKILL
    kill(-1, 0, 0.0)
    assert fit("killed", *keys) == 0
    straight, killed = (torch.utils._pytree.tree_leaves(part(state(name))) for name in ("straight", "killed"))
    assert len(straight) == len(killed) > 20
    for one, two in zip(straight, killed, strict=True):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    losses = [journal.read_journal(Path("runs") / name).series("val/loss") for name in ("straight", "killed")]
    assert losses[0].steps == losses[1].steps
    assert losses[0].values == losses[1].values


def part(state: dict[str, object]) -> list[object]:
    return [state[key] for key in ("global_step", "state_dict", "optimizer_states", "carried", "seen")]
