"""Where Lightning's loops go on counting: at the end of an epoch, and with other micro-batches a step."""

from typing import Any

import lightning.pytorch as pl

COUNTS = ("ready", "started", "processed", "completed")


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
