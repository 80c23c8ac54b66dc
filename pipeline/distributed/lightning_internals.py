"""Every access to non-public attributes of Lightning 2.6: its loops, their counters, its checkpoint connector.

tests/unit/distributed/test_lightning_internals.py checks that each attribute used here exists.
"""

import inspect
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

COUNTS = ("ready", "started", "processed", "completed")
CURRENT_HOOK = "_current_fx_name"  # attribute of a LightningModule that is set around each call of a hook
STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class LightModule(pl.LightningModule):
    """A LightningModule that stores the name of the current hook, which is set fifty times per step, without a search.

    For every other attribute, torch searches the parameters, buffers and layers of the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == CURRENT_HOOK:
            vars(self)[name] = value
        else:
            super().__setattr__(name, value)


class WholeFitLoop(_FitLoop):
    """A fit loop that runs even when no step is left, because a stop may have preceded the last validation."""

    skip = False


def train_whole(trainer: pl.Trainer) -> None:
    """Replace the trainer's fit loop by a `WholeFitLoop` that keeps the loop over batches."""
    before = trainer.fit_loop
    trainer.fit_loop = WholeFitLoop(trainer, before.min_epochs, before.max_epochs)
    trainer.fit_loop.epoch_loop = before.epoch_loop
    # Lightning's stop on SIGTERM reads a tensor on the host in every step. The vote on each step replaces it.
    before.epoch_loop.__dict__["_broadcast_sigterm_tensor"] = lambda: None


def call_overridden_hooks(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Make each training step call only those hooks of the callbacks and of the module that do something.

    Lightning calls each hook of each callback, and skips those that are not callable. It also reads the signature of
    `training_step` in each step, which is fast where the function holds it.
    """
    for owner in (*callbacks(trainer), module):
        for name in STEP_HOOKS:
            if not is_overridden(name, owner):
                setattr(owner, name, None)
    function = type(module).training_step
    vars(function)["__signature__"] = inspect.signature(function)


def datamodule(trainer: pl.Trainer) -> Any:
    """Return the trainer's DataModule, which Lightning attaches while the trainer runs."""
    return trainer.datamodule  # type: ignore[attr-defined]


def callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return the trainer's callbacks, in the order in which they are called."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def log_interval(trainer: pl.Trainer) -> int:
    """Return the number of optimizer steps between rows of the journal; 0 if no rows are written."""
    return int(trainer.log_every_n_steps)  # type: ignore[attr-defined]


def accumulates(trainer: pl.Trainer) -> bool:
    """Return whether gradients are only accumulated after this micro-batch, without an optimizer step."""
    return trainer.fit_loop._should_accumulate()


def validation_comes(trainer: pl.Trainer) -> bool:
    """Return whether a validation runs between this step and the next."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def validate(trainer: pl.Trainer) -> None:
    """Run a validation that is not due."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False  # a restored loop would skip as many batches as an earlier validation read
    trainer.validating = True
    loop.run()
    loop._has_run = False  # otherwise an epoch that is resumed at its end would wait forever for another validation
    trainer.training = True


def validates_by_the_clock(trainer: pl.Trainer) -> bool:
    """Return whether `val_check_interval` is a time."""
    return trainer._val_check_time_interval is not None  # type: ignore[attr-defined]


def plain_state(trainer: pl.Trainer) -> dict[str, Any]:
    """Return a Lightning checkpoint without tensors: loops, callbacks, schedule and what the task adds."""
    state: dict[str, object] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    del state["state_dict"], state["optimizer_states"]
    return state


def set_data_parallel_size(strategy: ModelParallelStrategy, size: int) -> None:
    """Set the size of the first mesh dimension, which is known once the number of processes is."""
    strategy._data_parallel_size = size


def start_next_epoch(trainer: pl.Trainer) -> None:
    """Start the next epoch if the restored run stopped exactly at the end of one.

    Lightning would continue as in the middle of an epoch. It would then take the next stop for the end of an epoch,
    or end this one after its first step.
    """
    loop: Any = trainer.fit_loop
    epochs, batches = loop.epoch_progress, loop.epoch_loop.batch_progress
    if loop.done:  # no step is left to train, but the last step and epoch must be counted
        for counts in (epochs.total, epochs.current, batches.total, batches.current):
            counts.processed = counts.completed = counts.ready
    elif epochs.current.processed != epochs.current.ready:
        pass  # in the middle of an epoch
    elif loop.restarted_mid_epoch:  # stopped before the end of the epoch was counted, which happened just now
        epochs.increment_ready()
        epochs.increment_started()
    else:
        loop.epoch_loop.restarting = False  # count from the first batch


def count_validation(trainer: pl.Trainer) -> None:
    """Count an interrupted validation as complete, because Lightning would wait forever for its end."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.batch_progress.reset()
    loop.batch_progress.increment_by(int(max(loop.max_batches)), is_last_batch=True)


def rescale(state: dict[str, Any], accumulation: int) -> None:
    """Convert a checkpoint's counts of micro-batches, in place, to another number of micro-batches per step.

    Args:
        state: the plain values of the checkpoint, which was saved between two optimizer steps.
        accumulation: new number of micro-batches per step.
    """
    before = state["accumulation"]
    progress = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        behind = {name: counts["ready"] - counts[name] for name in COUNTS}
        ready = counts["ready"] // before * accumulation
        counts.update({name: ready - behind[name] for name in COUNTS})
    state["accumulation"] = accumulation
