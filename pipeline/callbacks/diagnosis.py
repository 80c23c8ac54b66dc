"""Diagnoses of a model during training: every few steps, on the same sequences of the validation split.

The first process measures alone, in evaluation mode and without random numbers, so training is not affected.
"""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from pipeline.distributed.lightning_internals import datamodule
from pipeline.distributed.strategies.traits import traits
from pipeline.errors import ConfigError
from pipeline.evaluation.diagnosis import diagnose, require_diagnosable, spread_batch
from pipeline.evaluation.plots.diagnosis import diagnosis_picture
from pipeline.evaluation.plots.figure import rendered
from pipeline.tracking.journal_logger import JournalLogger

SEQUENCES = 8


class Diagnoses(Callback):
    """Writes diagnoses to the journal and their pictures to the run.

    Args:
        every: optimizer steps between two diagnoses.
        task: the task to diagnose.

    Raises:
        ConfigError: `every` is below 1, or the task cannot be diagnosed.
    """

    def __init__(self, every: int, task: pl.LightningModule) -> None:
        if every < 1:
            raise ConfigError(f"tracking.diagnosis={every} must be at least 1 step, or null for none")
        require_diagnosable(task)
        self.every = every

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise ConfigError under a strategy in which no process has all weights."""
        if traits(trainer).divides_model:
            name = type(trainer.strategy).__name__
            raise ConfigError(f"tracking.diagnosis={self.every}: {name} shards the weights; set it to null or use ddp")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Measure on the first process if a diagnosis is due after this step."""
        step, journals = trainer.global_step, [each for each in trainer.loggers if isinstance(each, JournalLogger)]
        if (batch_idx + 1) % trainer.accumulate_grad_batches or step % self.every or not journals:
            return
        data = datamodule(trainer)
        found, maps = diagnose(pl_module, spread_batch(data, "validation", SEQUENCES, pl_module.device))
        for journal in journals:
            journal.log_event("diagnosis", {"diagnosis": found.as_json()}, step)
            journal.log_pictures([rendered(diagnosis_picture({"": found}, maps))], step, "diagnosis")
