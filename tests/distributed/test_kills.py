"""Each of two processes is killed, again and again and anywhere in a step: the run always goes on to the same end."""

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.runs import journal
from pipeline.tasks.language_model import LanguageModel

Fit = Callable[..., int]
State = Callable[[str], dict[str, Any]]
KILLS = 20


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, float], None]:
    """`kill(RANK, STEPS, SECONDS)`: in the next attempts that process dies so long after it began so many steps."""
    straight = LanguageModel.training_step
    wanted = {"rank": -1, "steps": 0, "seconds": 0.0}

    def training_step(self: LanguageModel, batch: Any, batch_idx: int) -> torch.Tensor:
        self.begun = getattr(self, "begun", 0) + 1  # type: ignore[assignment, operator]
        if self.trainer.global_rank == wanted["rank"] and self.begun == wanted["steps"]:
            threading.Timer(wanted["seconds"], os.kill, (os.getpid(), signal.SIGKILL)).start()
        return straight(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModel, "training_step", training_step)
    return lambda rank, steps, seconds: wanted.update(rank=rank, steps=steps, seconds=seconds)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
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


def part(state: dict[str, Any]) -> list[Any]:
    return [state[key] for key in ("global_step", "state_dict", "optimizer_states", "carried", "seen")]
