"""Optimizer, schedule and length that were changed on purpose: a checkpoint restores the old values, which are replaced."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from pipeline.optim import parameter_groups
from pipeline.runs.changes import OPTIMIZER, SCHEDULE, changes_between, steps_of
from pipeline.runs.record import read_config


class OptimizerOptions(Callback):
    """Sets the options of the optimizer that differ between a run's config and the config in a checkpoint.

    Without a difference nothing is touched, so that a resumed run stays exact.

    Args:
        run: directory of the run.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the options that the checkpoint of this attempt has restored."""
        if trainer.ckpt_path is not None:
            self.replace(trainer, pl_module, Path(trainer.ckpt_path))

    def replace(self, trainer: pl.Trainer, task: Any, checkpoint: Path) -> None:
        """Replace options that the checkpoint has restored by those of the config."""
        before, after = read_config(checkpoint), read_config(self.run)
        keys = [change.key for change in changes_between(before, after)]
        names = {key.removeprefix(OPTIMIZER) for key in keys if key.startswith(OPTIMIZER)}
        if any(key.startswith(SCHEDULE) for key in keys) or _has_another_rate(task, before, after):
            names.add("lr")
        if not names:
            return
        fresh = task.optimizer_of(parameter_groups(task)).param_groups
        for group, wanted in zip(trainer.optimizers[0].param_groups, fresh, strict=True):
            group.update({name: wanted[name] for name in names if name in wanted})
        if "lr" in names:
            _apply_schedule(trainer)


def _has_another_rate(task: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether another length of the run changes the learning rate of the next step."""
    if task.schedule is None:
        return False
    per_epoch, step = task.data.steps_per_epoch, task.trainer.global_step
    old, new = (task.schedule.scale(step, steps_of(config, per_epoch), per_epoch) for config in (before, after))
    return bool(old != new)


def _apply_schedule(trainer: pl.Trainer) -> None:
    """Multiply new learning rates by the schedule's factor of the next step."""
    for config in trainer.lr_scheduler_configs:
        schedule: Any = config.scheduler
        schedule.last_epoch = trainer.global_step  # a checkpoint without a schedule has not restored it
        schedule.base_lrs = [group["lr"] for group in schedule.optimizer.param_groups]
        for group, factor in zip(schedule.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["initial_lr"] = group["lr"]
            group["lr"] *= factor(schedule.last_epoch)
