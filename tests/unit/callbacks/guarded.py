"""A fake training of single steps, for the tests of the guard."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import torch
from torch import nn

from pipeline.callbacks.checkpointing import Checkpoints, CheckpointSettings
from pipeline.callbacks.nonfinite_guard import Guard, GuardSettings
from pipeline.callbacks.step_vote import StepVote
from pipeline.distributed.strategies.zero import ZeRO


class Seen:
    """A metric that counts the tokens read."""

    def __init__(self) -> None:
        self.tokens = torch.tensor(10)

    @property
    def metric_state(self) -> dict[str, torch.Tensor]:
        return {"tokens": self.tokens}


class Task(pl.LightningModule):
    """A task of two parameters whose gradients are 3 and 4, with an optimizer that subtracts them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.0))
        self.one.grad, self.two.grad = torch.tensor(3.0), torch.tensor(4.0)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        self.carried: dict[int, object] = {0: torch.tensor(1.0)}
        self.seen = Seen()

    def measure_gradient(self) -> torch.Tensor:
        return torch.stack([self.one.grad, self.two.grad]).norm()


class Zero(ZeRO):
    """The ZeRO strategy without DeepSpeed."""

    dropped_step = False  # type: ignore[assignment]

    def __init__(self) -> None:
        self.refusals = 0

    def refuse_step(self, module: object) -> None:
        self.refusals += 1


def trainer(**changed: object) -> Mock:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}, {"lr": 0.25}])
    found = Mock(spec=pl.Trainer, accumulate_grad_batches=1, world_size=1, global_step=0, precision="32-true")
    found.configure_mock(loggers=[], is_global_zero=True, optimizers=[optimizer], callbacks=[], strategy=object())
    found.precision_plugin = SimpleNamespace()
    found.log_every_n_steps = 0
    found.fit_loop = SimpleNamespace(_should_accumulate=lambda: False)
    found.configure_mock(**changed)
    return found


def make_guard(directory: Path = Path("checkpoints"), **settings: Any) -> Guard:
    """Return a guard with its own vote and checkpoints."""
    vote = StepVote()
    return Guard(GuardSettings(**settings), vote, Checkpoints(CheckpointSettings(), vote, directory))


def step(guard: Guard, run: Mock, task: Task, *losses: float, ids: tuple[int, ...] = (7, 8), log: bool = True) -> bool:
    """Run one optimizer step of micro-batches with these losses; return whether it was taken.

    Args:
        guard: the guard.
        run: the trainer.
        task: the task, whose carried state becomes that of the last micro-batch.
        losses: a loss per micro-batch.
        ids: the samples of each micro-batch.
        log: whether a row of the journal is due after the step, so that its result is read at once.
    """
    before = task.one.item()
    for index, loss in enumerate(losses):
        guard.on_train_batch_start(run, task, SimpleNamespace(ids=torch.tensor(ids)), index)
        task.carried = {0: torch.tensor(loss)}
        task.seen.tokens += 5  # in place
        guard.on_before_backward(run, task, torch.tensor(loss))
    guard.on_before_optimizer_step(run, task, task.optimizer)
    task.optimizer.step()
    run.global_step += 1
    run.log_every_n_steps = 1 if log else 0
    for index, _ in enumerate(losses):
        guard.on_train_batch_end(run, task, None, None, index)
    return task.one.item() != before
