"""Texts generated during training, with their attention, for the same prompts and seeds at every validation."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from pipeline.distributed.strategies.traits import traits
from pipeline.evaluation.plots.figure import rendered


class Samples(Callback):
    """Logs a few texts after each validation, as selected by the task.

    Args:
        tokenizer: the run's tokenizer file.
        count: number of texts.
        tokens: length of each text.
    """

    def __init__(self, tokenizer: Path, count: int = 2, tokens: int = 80) -> None:
        self.file, self.count, self.tokens = tokenizer, count, tokens

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        loggers = [logger for logger in trainer.loggers if hasattr(logger, "log_samples")]
        divided = traits(trainer).divides_model  # then computing is a collective operation
        if trainer.state.fn != "fit" or not (divided or loggers):
            return
        from tokenizers import Tokenizer

        with torch.no_grad():
            rows = pl_module.examples(Tokenizer.from_file(str(self.file)), self.count, self.tokens)
        pictures = [rendered(row.pop("picture")) for row in rows if "picture" in row]
        sounds = [row.pop("sound") for row in rows if "sound" in row]
        for logger in loggers:
            logger.log_samples(rows, trainer.global_step)
            if pictures and hasattr(logger, "log_pictures"):
                logger.log_pictures(pictures, trainer.global_step)
            if sounds and hasattr(logger, "log_sounds"):
                logger.log_sounds(sounds, trainer.global_step)
