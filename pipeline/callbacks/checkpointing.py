"""Checkpointing: the processes agree in each step whether to continue, save, or save and stop.

A checkpoint is saved every few steps or minutes, after each validation, on a stop signal, and at the end. Training
pauses while the state is copied to host memory. The copy is written in the background and published between two
later steps. The newest checkpoints and the best by a metric are kept.
"""

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from pipeline.callbacks.averaging import WeightAverage
from pipeline.callbacks.step_vote import StepVote
from pipeline.distributed import signals, snapshot
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.distributed.checkpoint import shards
from pipeline.distributed.lightning_internals import (
    callbacks,
    count_validation,
    rescale,
    start_next_epoch,
    validate,
    validation_comes,
)
from pipeline.errors import CheckpointError
from pipeline.runs import record
from pipeline.runs.journal import plain
from pipeline.tracking.journal_logger import JournalLogger, journal_fault


@dataclass(frozen=True)
class CheckpointSettings:
    """When a run is saved, and which checkpoints are kept.

    Args:
        every_steps: optimizer steps between two checkpoints; None to disable.
        every_minutes: minutes between two checkpoints; None to disable.
        keep_last: number of newest checkpoints to keep.
        keep_best: number of checkpoints with the lowest metric to keep.
        metric: metric of the best checkpoint; lower is better.
        background: write while training continues; False waits for the disk.

    Raises:
        ValueError: no checkpoint would be kept.
    """

    every_steps: int | None = None
    every_minutes: float | None = 10.0
    keep_last: int = 2
    keep_best: int = 1
    metric: str = "val/loss"
    background: bool = True

    def __post_init__(self) -> None:
        if self.keep_last < 1:
            raise ValueError(
                f"keep_last={self.keep_last} must be at least 1: a run without a checkpoint cannot be resumed"
            )


class Checkpoints(Checkpoint):
    """Saves the run. Lightning calls a `Checkpoint` after all other callbacks, so it saves their effects of a step.

    Args:
        settings: when to save, and what to keep.
        vote: the vote in which the processes agree.
        directory: directory of the checkpoints.
    """

    def __init__(self, settings: CheckpointSettings, vote: StepVote, directory: Path) -> None:
        self.settings, self.vote, self.directory = settings, vote, directory
        self.agreement = vote.agreement
        vote.questions |= {
            "save": self._save_is_due,
            "stop": lambda trainer: signals.requested() is not None,
            "written": lambda trainer: self.writing is not None and not self.writing.busy,
        }
        self.writing: checkpoint.Writing | None = None
        self.about: checkpoint.Manifest = {}
        self.stalled = 0.0  # seconds that training paused for checkpoints since the last row
        self.saved_at, self.saved_step, self.validated_step = time.monotonic(), -1, -1
        self.validation_due = False
        self.loops: dict[str, object] | None = None  # as loaded, until training continues

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Connect the processes that vote."""
        self.agreement.connect()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers after Lightning's, and run a validation that a stop left undone."""
        signals.install()
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
        if self.validation_due:
            self.validation_due = False
            validate(trainer)
        start_next_epoch(trainer)
        self.loops = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """At the end of an optimizer step, save or stop as agreed."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        save, stop, written = (self.vote.take(name) for name in ("save", "stop", "written"))
        if self.writing is not None and written == trainer.world_size:
            self.finish(trainer)
        if not save and not stop and not self.saves_by_steps(trainer):
            return
        validates = validation_comes(trainer)
        if validates and not stop:
            return  # the validation that follows ends with a checkpoint
        self.validation_due = validates
        self.save(trainer)
        if stop:
            self.finish_last(trainer)
            raise signals.Stopped
        self.validation_due = False

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: object) -> None:
        """On a stop signal to any process, abort the validation, save and stop; the next attempt repeats it."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.agreement.largest(int(signals.requested() is not None)) == [0]:
            return
        for callback in (each for each in callbacks(trainer) if isinstance(each, WeightAverage)):
            callback.restore_weights(pl_module)
        self.validation_due = True
        count_validation(trainer)
        self.finish_last(trainer)
        raise signals.Stopped

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save with the new metrics."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.validated_step = trainer.global_step
            self.saved_step = -1  # the same step may have been saved without its metrics
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate and save at the end, unless that is already done for the last step."""
        if self.validated_step != trainer.global_step:
            validate(trainer)
        self.finish_last(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        checkpoint["accumulation"] = trainer.accumulate_grad_batches
        if self.loops is not None:  # Lightning has not restored them yet
            checkpoint["loops"] = self.loops

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        rescale(checkpoint, trainer.accumulate_grad_batches)
        self.loops = copy.deepcopy(checkpoint["loops"])

    def row(self) -> dict[str, float]:
        """Return, for the journal, the seconds that training paused for checkpoints since the last row."""
        stalled, self.stalled = self.stalled, 0.0
        return {"train/checkpoint_stall": stalled}

    def state_dict(self) -> dict[str, object]:
        return {"validation_due": self.validation_due, "validated_step": self.validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validation_due, self.validated_step = state_dict["validation_due"], state_dict["validated_step"]

    def saves_by_steps(self, trainer: pl.Trainer) -> bool:
        """Return whether a checkpoint is due after this step, which is the same on every process."""
        return bool(self.settings.every_steps) and trainer.global_step % int(self.settings.every_steps or 1) == 0

    def save(self, trainer: pl.Trainer) -> None:
        """Save the checkpoint of this step; called on every process."""
        assert not self.vote.pending, "a checkpoint must contain the result of every vote"
        if self.saved_step == trainer.global_step:
            return
        self.finish(trainer)
        for request in ("written", "save"):  # they are about the checkpoint before
            self.vote.take(request)
        began = time.monotonic()
        self.saved_at, self.saved_step = began, trainer.global_step
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        self.about = {
            "step": trainer.global_step,
            "metrics": metrics if self.validated_step == trainer.global_step else {},
            "strategy": type(trainer.strategy).__name__,
            "world_size": trainer.world_size,
        }
        taken, rank = snapshot.take(trainer), trainer.global_rank

        def write(own: Path) -> None:
            shards.write_shard(own / f"rank-{rank:05d}.safetensors", taken.shards)
            if rank == 0:
                torch.save(taken.plain, own / checkpoint.STATE)
                record.copy_into(self.directory.parent, own)

        self.writing = checkpoint.Writing(self.directory / checkpoint.checkpoint_name(trainer.global_step), write, rank)
        self.stalled += time.monotonic() - began
        if not self.settings.background:
            self.finish(trainer)

    def finish(self, trainer: pl.Trainer) -> None:
        """Publish the checkpoint being written, or report its failure; called on every process.

        A failed save (disk full, directory not writable) does not end training: earlier checkpoints are untouched.
        """
        if self.writing is None:
            return
        began = time.monotonic()
        writing, self.writing = self.writing, None
        writing.thread.join()
        failed, *_ = self.agreement.largest(int(writing.error is not None))
        error: Exception | str | None = writing.error or ("another process could not write" if failed else None)
        if trainer.is_global_zero:
            error = error or self._publish(trainer, writing)
            if error is not None:  # before the others are informed: they may retry this step in the same place
                self._report(trainer, writing, str(error))
        unsaved, *_ = self.agreement.largest(int(error is not None))
        if unsaved:
            self.saved_step = -1  # this step is not saved on any process
        self.stalled += time.monotonic() - began

    def save_first(self, trainer: pl.Trainer) -> None:
        """Publish a checkpoint before the first step; called on every process."""
        self.saved_step = -1
        self.finish_last(trainer)

    def finish_last(self, trainer: pl.Trainer) -> None:
        """Publish the checkpoint with which the run ends or stops; called on every process.

        Raises:
            CheckpointError: the checkpoint could not be saved.
        """
        self.save(trainer)
        self.finish(trainer)
        if self.saved_step != trainer.global_step:
            raise CheckpointError(
                f"the checkpoint of step {trainer.global_step} could not be saved (see above). Free disk space or fix "
                "the permissions; the same command continues from the previous checkpoint"
            )

    def _save_is_due(self, trainer: pl.Trainer) -> bool:
        minutes = self.settings.every_minutes
        return minutes is not None and time.monotonic() - self.saved_at > 60 * minutes

    def _publish(self, trainer: pl.Trainer, writing: checkpoint.Writing) -> OSError | None:
        try:
            for journal in _journals(trainer):
                journal.flush()  # rows before a published checkpoint are never logged again
            writing.publish(self.about, trainer.world_size)
        except OSError as problem:
            return problem
        try:
            self._remove_old()
        except OSError as problem:  # the new one is published nevertheless
            print(f"an older checkpoint could not be removed ({problem}); training continues", flush=True)
            journal_fault(trainer, {"fault": "checkpoint_not_removed", "why": str(problem)})
        self._log_checkpoint(trainer, writing.directory)
        return None

    def _report(self, trainer: pl.Trainer, writing: checkpoint.Writing, why: str) -> None:
        writing.drop()
        print(
            f"{writing.directory} could not be saved ({why}); earlier checkpoints are kept, training continues",
            flush=True,
        )
        journal_fault(trainer, {"fault": "checkpoint_not_saved", "why": why})

    def _log_checkpoint(self, trainer: pl.Trainer, place: Path) -> None:
        """Write the published checkpoint to the journal with its aliases: last, and possibly best."""
        best = checkpoint.by_metric(self.directory, self.settings.metric)[:1]
        aliases = ["last", *(["best"] if [path for _, path in best] == [place] else [])]
        where = str(place.relative_to(self.directory.parent))
        metrics = {name: plain(value) for name, value in self.about["metrics"].items()}
        fields = {"path": where, "aliases": aliases, "metrics": metrics}
        for journal in _journals(trainer):
            journal.log_event("checkpoint", fields, self.about["step"])

    def _remove_old(self) -> None:
        if self.vote.keeps_all:
            return
        kept = set(checkpoint.newest_first(self.directory)[: self.settings.keep_last])
        kept |= {
            path for _, path in checkpoint.by_metric(self.directory, self.settings.metric)[: self.settings.keep_best]
        }
        for path in checkpoint.newest_first(self.directory):
            if path not in kept:
                checkpoint.remove(path)


def _journals(trainer: pl.Trainer) -> list[JournalLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, JournalLogger)]
