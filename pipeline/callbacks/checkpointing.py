"""Before each step, and in a validation, the processes agree what comes after it: go on, save, or save and leave.

A checkpoint is taken every so many steps or minutes, after each validation, when a signal asked the run to
stop, and at the end. Training stands still while the state is copied to host memory; the copy is written in
the background and published between two later steps. The last few and the best by a metric are kept.
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
from pipeline.callbacks.step_vote import Requests, StepVote
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
    """When a run is saved, and what is kept.

    Args:
        every_steps: optimizer steps from one checkpoint to the next; None for none by steps.
        every_minutes: minutes after which one is due whatever the steps; None for none by time.
        keep_last: newest checkpoints kept.
        keep_best: checkpoints with the lowest metric kept.
        metric: what `best` means; lower is better.
        background: write while training goes on; False waits for the disk.

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
                f"keep_last={self.keep_last} must be at least 1: a run without a checkpoint cannot continue"
            )


class Checkpoints(Checkpoint):
    """Saves the run; Lightning calls a `Checkpoint` after all other callbacks, so it saves what they did in a step.

    Args:
        settings: when, and what is kept.
        vote: where the processes agree.
        directory: where they are written.
    """

    def __init__(self, settings: CheckpointSettings, vote: StepVote, directory: Path) -> None:
        self.settings, self.vote, self.directory = settings, vote, directory
        self.agreement = vote.agreement
        self.writing: checkpoint.Writing | None = None
        self.about: checkpoint.Manifest = {}
        self.stalled = 0.0  # seconds that training stood still for checkpoints, since somebody last asked
        self.saved_at, self.saved_step, self.validated_step = time.monotonic(), -1, -1
        self.validation_due = False
        self.loops: dict[str, Any] | None = None  # as they were loaded, until training goes on

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Connect the processes that will agree."""
        self.agreement.connect()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to signals, after Lightning put its own handlers; do what a stop at a step's end left undone."""
        signals.install()
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
        if self.validation_due:
            self.validation_due = False
            validate(trainer)
        start_next_epoch(trainer)
        self.loops = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At the end of an optimizer step: save or leave, as was agreed before it."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        verdict = self.vote.verdict
        if self.writing is not None and not verdict.writing:
            self.finish(trainer)
        if not verdict.save and not verdict.stop:
            return
        validates = validation_comes(trainer)
        if validates and not verdict.stop:
            return  # the validation that comes now ends with a checkpoint
        self.validation_due = validates
        self.save(trainer)
        if verdict.stop:
            self.finish_last(trainer)
            raise signals.Stopped
        self.validation_due = False

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Where a process was asked to stop: break the validation off, save and leave; it begins anew after that."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self.agreement.largest(int(signals.requested() is not None)) == [0]:
            return
        for callback in (each for each in callbacks(trainer) if isinstance(each, WeightAverage)):
            callback.put_own_back(pl_module)
        self.validation_due = True
        count_validation(trainer)
        self.finish_last(trainer)
        raise signals.Stopped

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save with the metrics just measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.validated_step = trainer.global_step
            self.saved_step = -1  # the same step may have been saved without its metrics
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate and save the end, unless the last step is validated and saved already."""
        if self.validated_step != trainer.global_step:
            validate(trainer)
        self.finish_last(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["accumulation"] = trainer.accumulate_grad_batches
        if self.loops is not None:  # Lightning is still about to take them up
            checkpoint["loops"] = self.loops

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        rescale(checkpoint, trainer.accumulate_grad_batches)
        self.loops = copy.deepcopy(checkpoint["loops"])

    def row(self) -> dict[str, float]:
        """For the journal: seconds that training stood still for checkpoints since the last row."""
        stalled, self.stalled = self.stalled, 0.0
        return {"train/checkpoint_stall": stalled}

    def state_dict(self) -> dict[str, Any]:
        return {"validation_due": self.validation_due, "validated_step": self.validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validation_due, self.validated_step = state_dict["validation_due"], state_dict["validated_step"]

    def requests(self, trainer: pl.Trainer) -> Requests:
        """Return what this process requests for the end of the next step."""
        every_steps, every_minutes = self.settings.every_steps, self.settings.every_minutes
        by_steps = bool(every_steps) and (trainer.global_step + 1) % int(every_steps or 1) == 0
        by_time = every_minutes is not None and time.monotonic() - self.saved_at > 60 * every_minutes
        writing = self.writing is not None and self.writing.busy
        return Requests(by_steps or by_time, signals.requested() is not None, writing)

    def save(self, trainer: pl.Trainer) -> None:
        """Take the checkpoint of this step; called on every process."""
        if self.saved_step == trainer.global_step:
            return
        self.finish(trainer)
        began = time.monotonic()
        self.saved_at, self.saved_step = began, trainer.global_step
        validated = self.validated_step == trainer.global_step
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        self.about = {
            "step": trainer.global_step,
            "metrics": metrics if validated else {},
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
        """Publish the checkpoint under way, or tell that it failed; called on every process.

        A save that fails (disk full, directory not writable) does not end training: the checkpoints before
        it are untouched.
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
            if error is not None:  # before the others know: they may try this step again, in the same place
                self._complain(trainer, writing, str(error))
        unsaved, *_ = self.agreement.largest(int(error is not None))
        if unsaved:
            self.saved_step = -1  # nobody may think that this step is safe
        self.stalled += time.monotonic() - began

    def finish_last(self, trainer: pl.Trainer) -> None:
        """Publish the checkpoint that the run ends or stops with; called on every process.

        Raises:
            CheckpointError: it could not be saved.
        """
        self.save(trainer)
        self.finish(trainer)
        if self.saved_step != trainer.global_step:
            raise CheckpointError(
                f"the checkpoint of step {trainer.global_step} could not be saved, see above: make room, or mend the "
                "permissions; the same command continues from the one before"
            )

    def _publish(self, trainer: pl.Trainer, writing: checkpoint.Writing) -> OSError | None:
        try:
            writing.publish(self.about, trainer.world_size)
        except OSError as problem:
            return problem
        try:
            self._forget_old()
        except OSError as problem:  # the new one is there all the same
            print(f"an older checkpoint could not be removed ({problem}); training goes on", flush=True)
            journal_fault(trainer, {"fault": "checkpoint_not_removed", "why": str(problem)})
        self._tell_of(trainer, writing.directory)
        return None

    def _complain(self, trainer: pl.Trainer, writing: checkpoint.Writing, why: str) -> None:
        writing.drop()
        print(f"{writing.directory} could not be saved ({why}); those before it are kept, training goes on", flush=True)
        journal_fault(trainer, {"fault": "checkpoint_not_saved", "why": why})

    def _tell_of(self, trainer: pl.Trainer, place: Path) -> None:
        """Have the journal say which checkpoint is there, and what it is: the last, and perhaps the best."""
        best = checkpoint.by_metric(self.directory, self.settings.metric)[:1]
        aliases = ["last", *(["best"] if [path for _, path in best] == [place] else [])]
        where = str(place.relative_to(self.directory.parent))
        fields = {"path": where, "aliases": aliases, "metrics": _plain(self.about["metrics"])}
        for logger in trainer.loggers:
            if isinstance(logger, JournalLogger):
                logger.log_event("checkpoint", fields, self.about["step"])

    def _forget_old(self) -> None:
        if self.vote.keeps_all:
            return
        kept = set(checkpoint.newest_first(self.directory)[: self.settings.keep_last])
        kept |= {
            path for _, path in checkpoint.by_metric(self.directory, self.settings.metric)[: self.settings.keep_best]
        }
        for path in checkpoint.newest_first(self.directory):
            if path not in kept:
                checkpoint.remove(path)


def _plain(metrics: dict[str, float]) -> dict[str, Any]:
    return {name: plain(value) for name, value in metrics.items()}
