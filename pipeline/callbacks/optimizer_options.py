"""Options of the optimizer that were changed on purpose replace those that a checkpoint restores."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR

from pipeline.errors import UserError
from pipeline.optim import parameter_groups
from pipeline.runs.changes import OPTIMIZER, SCHEDULE, changes_between, is_below
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
        """Replace options that the checkpoint has restored by those of the config. Must be called on every process.

        Raises:
            UserError: a config cannot be read; on every process.
        """
        found: set[str] | UserError = set()
        if trainer.is_global_zero:  # the others may see older files
            try:
                found = self._changed(checkpoint)
            except UserError as error:
                found = error
        names = trainer.strategy.broadcast(found)
        if isinstance(names, UserError):
            raise names
        if not names:
            return
        fresh = task.optimizer_of(parameter_groups(task)).param_groups
        for group, wanted in zip(trainer.optimizers[0].param_groups, fresh, strict=True):
            group.update({name: wanted[name] for name in names if name in wanted})
        if "lr" in names:
            _apply_schedule(trainer)

    def _changed(self, checkpoint: Path) -> set[str]:
        """Return the names of the options that changed since a checkpoint was written; `lr` also for a schedule."""
        keys = [change.key for change in changes_between(read_config(checkpoint), read_config(self.run))]
        names = {key.removeprefix(OPTIMIZER) for key in keys if key.startswith(OPTIMIZER)}
        return names | ({"lr"} if any(is_below(key, SCHEDULE) for key in keys) else set())


def _apply_schedule(trainer: pl.Trainer) -> None:
    """Multiply new learning rates by the schedule's factor of the next step."""
    for config in trainer.lr_scheduler_configs:
        schedule = config.scheduler
        assert isinstance(schedule, LambdaLR)
        schedule.last_epoch = trainer.global_step  # a checkpoint without a schedule has not restored it
        schedule.base_lrs = [group["lr"] for group in schedule.optimizer.param_groups]
        for group, factor in zip(schedule.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["initial_lr"] = group["lr"]
            group["lr"] *= factor(schedule.last_epoch)
