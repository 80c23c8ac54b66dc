"""A callback that slows down a tiny run and writes where it is, so that kills can be aimed at every part of it."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Pace(Callback):
    """Writes `training STEP`, `validation STEP` or `end STEP` to the file of the variable CHAOS_MOMENT.

    Args:
        step: seconds by which each training step is longer.
        validation: seconds by which each validation, and the end of the training, is longer.
    """

    def __init__(self, step: float = 0.01, validation: float = 0.1) -> None:
        self.step, self.validation = step, validation

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self._at("training", trainer, self.step)

    def on_validation_start(self, trainer: Any, *_: Any) -> None:
        self._at("validation", trainer, self.validation / 2)

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        self._at("validation", trainer, self.validation / 2)

    def on_train_end(self, trainer: Any, *_: Any) -> None:
        self._at("end", trainer, self.validation)

    def on_fit_end(self, trainer: Any, *_: Any) -> None:
        self._at("end", trainer, self.validation)

    def _at(self, moment: str, trainer: Any, seconds: float) -> None:
        if trainer.is_global_zero:
            file = Path(os.environ["CHAOS_MOMENT"])
            with suppress(OSError):
                (new := file.with_suffix(".new")).write_text(f"{moment} {trainer.global_step}")
                new.rename(file)
        time.sleep(seconds)
