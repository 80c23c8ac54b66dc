"""What happened to a run, and its comparison with an undisturbed one when it has finished."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from pipeline.distributed.checkpoint.directory import newest_first, read_state
from tests import commands
from tests.chaos.home import Home


class Hurt(NamedTuple):
    """An injury that was inflicted."""

    kind: str
    moment: str
    step: int
    attempt: int


@dataclass
class Result:
    """What happened to a run, and what it became."""

    number: int
    hurts: list[Hurt] = field(default_factory=list)
    attempts: int = 0
    hangs: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def faultless(self) -> bool:
        """Whether nothing went wrong."""
        wrong = (self.hangs, self.failures, self.leftovers, self.different)
        return not any(wrong) and not any(self.rows.values())


def verify(home: Home, name: str, result: Result) -> None:
    """Compare weights, optimizer and carried state with the undisturbed run, and the rows that were sent."""
    last, straight = (newest_first(home.path / "runs" / each / "checkpoints")[0] for each in (name, "straight"))
    result.different = list(differences(last, straight))
    command = [sys.executable, "-m", "pipeline", "sync", name]
    sent = commands.run(command, 60, cwd=home.path, env=home.environment)
    if sent.returncode:
        result.failures.append(f"unroll sync: {sent.stdout[-300:]} {sent.stderr[-300:]}")
    result.rows = home.tracker.compare(home.record(name)["wandb_id"], home.expected)


def differences(one: Path, two: Path) -> Iterator[str]:
    """Yield the names of values of two checkpoints that differ in any bit."""
    states = [read_state(path) for path in (one, two)]
    for part in ("global_step", "state_dict", "optimizer_states", "carried"):
        flat = [dict(torch.utils._pytree.tree_flatten_with_path(state.get(part))[0]) for state in states]
        for key in flat[0].keys() | flat[1].keys():
            if bits(flat[0].get(key)) != bits(flat[1].get(key)):
                yield f"{part}{torch.utils._pytree.keystr(key)}"


def bits(value: object) -> object:
    """Return the bytes of a tensor, and any other value itself."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return value
