"""Images generated and completed by the model during training, with the same seeds and inputs each time."""

from itertools import product
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback

from pipeline.distributed.lightning_internals import datamodule
from pipeline.distributed.strategies.traits import traits
from pipeline.generation.sampling import Sample


class Paintings(Callback):
    """Logs grids of generated and of completed images.

    Args:
        samples: images per label; eight times as many without labels.
        halves: number of validation images whose lower half is completed.
    """

    def __init__(self, samples: int = 4, halves: int = 8) -> None:
        self.samples, self.halves = samples, halves

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        divided = traits(trainer).divides_model  # then computing is a collective operation
        if trainer.state.fn != "fit" or not (divided or trainer.is_global_zero):
            return
        images = datamodule(trainer).samples("validation")
        shape = pl_module.rows, pl_module.columns, pl_module.channels
        given = images.pixels(np.arange(min(self.halves, len(images)))).reshape(-1, *shape)
        labels = [*range(pl_module.labels)] or [None]
        pictures = {"drawn": pl_module.drawings(labels, self.samples * (1 if pl_module.labels else 8), Sample(), 0)}
        if pl_module.rows > 1:  # an image of one row cannot be halved
            pictures["completed"] = pl_module.completions(given, self.samples, Sample(), 0)
        keeping = [logger for logger in trainer.loggers if hasattr(logger, "log_pictures")]
        for logger, (name, picture) in product(keeping, pictures.items()):
            logger.log_pictures([picture], trainer.global_step, name)
