"""Images that a model draws as it learns, and halves that it completes: the same seeds and halves each time."""

from itertools import product
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback

from pipeline.distributed.lightning_internals import datamodule
from pipeline.distributed.strategies.traits import traits
from pipeline.generation.sampling import Sample


class Paintings(Callback):
    """Hands pictures of drawn and of completed images to the loggers that keep pictures.

    Args:
        samples: images of each label, or eight times as many where there are no labels.
        halves: images of the validation split that are completed.
    """

    def __init__(self, samples: int = 4, halves: int = 8) -> None:
        self.samples, self.halves = samples, halves

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        divided = traits(trainer).divides_model  # then no process can compute without the others
        if trainer.state.fn != "fit" or not (divided or trainer.is_global_zero):
            return
        images = datamodule(trainer).samples("validation")
        shape = pl_module.rows, pl_module.columns, pl_module.channels
        given = images.pixels(np.arange(min(self.halves, len(images)))).reshape(-1, *shape)
        labels = [*range(pl_module.labels)] or [None]
        pictures = {"drawn": pl_module.drawings(labels, self.samples * (1 if pl_module.labels else 8), Sample(), 0)}
        if pl_module.rows > 1:  # else there is no upper half
            pictures["completed"] = pl_module.completions(given, self.samples, Sample(), 0)
        keeping = [logger for logger in trainer.loggers if hasattr(logger, "log_pictures")]
        for logger, (name, picture) in product(keeping, pictures.items()):
            logger.log_pictures([picture], trainer.global_step, name)
