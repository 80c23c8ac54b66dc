"""Assertions on runs that the tests of this folder share."""

from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.distributed.checkpoint import directory as checkpoint
from tests.distributed.fixture_types import State

Apart = Callable[[Callable[[], int]], int]
OFTEN = ["checkpoints.every_steps", 1, "checkpoints.background", "false"]


def whole(state: State, name: str = "stopped") -> None:
    """Assert that the run ended bitwise equal to the uninterrupted one."""
    one, two = (state(each) for each in ("straight", name))
    for part in ("global_step", "state_dict", "optimizer_states", "carried", "seen"):
        left, right = (torch.utils._pytree.tree_leaves(each[part]) for each in (one, two))
        assert len(left) == len(right) > 0
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def steps(name: str = "stopped") -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.newest_first(Path("runs") / name / "checkpoints")]
