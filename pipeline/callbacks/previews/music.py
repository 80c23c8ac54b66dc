"""Pieces that the model continues during training, with the same beginnings and seeds each time."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from PIL.Image import Image

from pipeline.dataset.codecs.midi import BEATS_PER_MINUTE
from pipeline.dataset.codecs.plucked_strings import RATE, rendered_notes
from pipeline.distributed.lightning_internals import datamodule
from pipeline.distributed.strategies.traits import traits
from pipeline.evaluation.plots.piano_roll import piano_roll
from pipeline.evaluation.plots.spectrogram import Shown, with_spectrogram


@runtime_checkable
class Composer(Protocol):
    """A model that continues a piece."""

    steps_per_beat: int

    def generate(self, given: np.ndarray, count: int) -> np.ndarray:
        """Return frames that follow the given ones."""


@runtime_checkable
class Gallery(Protocol):
    """A logger of pictures and sounds."""

    def log_pictures(self, pictures: Sequence[Image], step: int, name: str) -> None:
        """Log pictures."""

    def log_sounds(self, sounds: Sequence[Shown], step: int) -> None:
        """Log sounds."""


class Rolls(Callback):
    """Logs continuations of the first validation pieces, as piano rolls and sounds.

    Args:
        pieces: number of pieces.
        given: number of frames of each piece that are read.
        frames: number of new frames.
    """

    def __init__(self, pieces: int = 2, given: int = 16, frames: int = 64) -> None:
        self.pieces, self.given, self.frames = pieces, given, frames

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, Gallery)]
        divided = traits(trainer).divides_model  # then computing is a collective operation
        if trainer.state.fn != "fit" or not (divided or loggers):
            return
        assert isinstance(pl_module, Composer)
        split, steps = datamodule(trainer).split("validation"), pl_module.steps_per_beat
        rolls, sounds = [], []
        for number in range(min(self.pieces, split.pieces)):
            given = split.piece(number)[: self.given]
            whole = np.concatenate([given, pl_module.generate(given, self.frames)])
            rolls.append(piano_roll(whole, len(given), steps))
            sounds.append(with_spectrogram(rendered_notes(whole, 60 / BEATS_PER_MINUTE / steps), RATE))
        for logger in loggers:
            logger.log_pictures(rolls, trainer.global_step, "music")
            logger.log_sounds(sounds, trainer.global_step)
