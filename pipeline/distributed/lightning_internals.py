"""Every access to non-public attributes of Lightning 2.6: its loops, their counts, its checkpoint connector.

tests/unit/distributed/test_lightning_internals.py checks that each attribute used here exists.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.strategies import ModelParallelStrategy

COUNTS = ("ready", "started", "processed", "completed")


class WholeFitLoop(_FitLoop):
    """Training that begins and ends even where no step is left: a stop may have left the last validation to do."""

    skip = False


def train_whole(trainer: pl.Trainer) -> None:
    """Give the trainer a `WholeFitLoop`, with the loop over batches that it has."""
    before = trainer.fit_loop
    trainer.fit_loop = WholeFitLoop(trainer, before.min_epochs, before.max_epochs)
    trainer.fit_loop.epoch_loop = before.epoch_loop


def datamodule(trainer: pl.Trainer) -> Any:
    """The DataModule that feeds the trainer, which Lightning attaches while it runs."""
    return trainer.datamodule  # type: ignore[attr-defined]


def callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's callbacks, in the order in which they are called."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def log_interval(trainer: pl.Trainer) -> int:
    """Optimizer steps from one row of the journal to the next; 0 for none."""
    return int(trainer.log_every_n_steps)  # type: ignore[attr-defined]


def accumulates(trainer: pl.Trainer) -> bool:
    """Whether the optimizer does not step after this micro-batch."""
    return trainer.fit_loop._should_accumulate()


def validation_comes(trainer: pl.Trainer) -> bool:
    """Whether a validation comes after this step, before the next."""
    loop: Any = trainer.fit_loop
    return bool(loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def validate(trainer: pl.Trainer) -> None:
    """Run a validation where none is due."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False  # a loaded loop would count the batches of an earlier validation as read
    trainer.validating = True
    loop.run()
    loop._has_run = False  # or an epoch that is taken up at its end would wait for ever for another one
    trainer.training = True


def validates_by_the_clock(trainer: pl.Trainer) -> bool:
    """Whether `val_check_interval` is a time."""
    return trainer._val_check_time_interval is not None  # type: ignore[attr-defined]


def plain_state(trainer: pl.Trainer) -> dict[str, Any]:
    """Loops, callbacks, schedule and what the task adds: a checkpoint of Lightning without its tensors."""
    state: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    del state["state_dict"], state["optimizer_states"]
    return state


def set_data_parallel_size(strategy: ModelParallelStrategy, size: int) -> None:
    """Set the size of the first dimension of the mesh, known once the environment gives the number of processes."""
    strategy._data_parallel_size = size


def turn_page(trainer: pl.Trainer) -> None:
    """Begin the next epoch where the run was left at the very end of one.

    Lightning would go on as if in the middle of an epoch: it would take the next stop for the end of
    one, or end this one after its first step.
    """
    loop: Any = trainer.fit_loop
    epochs, batches = loop.epoch_progress, loop.epoch_loop.batch_progress
    if loop.done:  # nothing is left to train, and to count the last step and epoch
        for counts in (epochs.total, epochs.current, batches.total, batches.current):
            counts.processed = counts.completed = counts.ready
    elif epochs.current.processed != epochs.current.ready:
        pass  # in the middle of an epoch
    elif loop.restarted_mid_epoch:  # left before the end was counted, which was done just now
        epochs.increment_ready()
        epochs.increment_started()
    else:
        loop.epoch_loop.restarting = False  # count from the first batch


def count_validation(trainer: pl.Trainer) -> None:
    """Count a validation that is broken off as if it had come to its end: Lightning would wait for ever for that."""
    loop: Any = trainer.fit_loop.epoch_loop.val_loop
    loop.batch_progress.reset()
    loop.batch_progress.increment_by(int(max(loop.max_batches)), is_last_batch=True)


def rescale(state: dict[str, Any], accumulation: int) -> None:
    """Recount a checkpoint's micro-batches, in place, for another number of micro-batches a step.

    Args:
        state: the checkpoint, taken between two optimizer steps.
        accumulation: micro-batches a step from now on.
    """
    before = state["accumulation"]
    progress = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        behind = {name: counts["ready"] - counts[name] for name in COUNTS}
        ready = counts["ready"] // before * accumulation
        counts.update({name: ready - behind[name] for name in COUNTS})
    state["accumulation"] = accumulation
