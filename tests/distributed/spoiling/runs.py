"""What the tests of this folder look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.distributed.checkpoint import directory as checkpoint

Fit = Callable[..., int]
State = Callable[[str], dict[str, Any]]
Apart = Callable[[Callable[[], int]], int]
OFTEN = ["checkpoints.every_steps", 1, "checkpoints.background", "false"]


def whole(state: State, name: str = "stopped") -> None:
    """The run has ended as the straight one has, in every bit."""
    one, two = (state(each) for each in ("straight", name))
    for part in ("global_step", "state_dict", "optimizer_states", "carried", "seen"):
        left, right = (torch.utils._pytree.tree_leaves(each[part]) for each in (one, two))
        assert len(left) == len(right) > 0
        for a, b in zip(left, right, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def steps(name: str = "stopped") -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.newest_first(Path("runs") / name / "checkpoints")]
