"""The front end of models of pixels: images of the labels asked for, or what halves of images might go on as.

Each pixel costs the same, however many were drawn before: the carried state is all that the next one needs.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL.Image import Image

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained, labels_of, open_model, vocabulary
from pipeline.dataset.codecs.image import ImageError, decode_image
from pipeline.dataset.codecs.pixel_levels import quantise, values
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Sample, Stepwise


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Write a picture.

    Raises:
        UserError: no such checkpoint, image or label, or settings that cannot be.
    """
    if arguments.out is None:
        raise ConfigError(f"{trained} writes images: give --out FILE.png")
    file, (choice, _) = arguments.out, settings(arguments)
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--out {file}: name a .png file")
    painter = Painter.open(trained.name, arguments.checkpoint)
    painter.paint(file, arguments.prompt or [], arguments.image or [], arguments.samples, choice, arguments.seed)


@dataclass(frozen=True)
class Painter:
    """A trained model of pixels, and the labels that it can be asked for.

    Args:
        run: where it was trained.
        model: in eval mode.
        labels: in the order of their classes; none where images have no labels.
    """

    run: Path
    model: Any
    labels: list[str]

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "Painter":
        """Load a run or an exported model.

        Raises:
            CheckpointError: no such run or checkpoint, or no tokenizer in it.
        """
        run, model, _ = open_model(name, checkpoint)
        tokenizer, _ = vocabulary(run / "tokenizer.json")
        return cls(run, model, labels_of(tokenizer) if model.labels else [])

    def paint(self, file: Path, labels: list[str], images: list[str], samples: int, choice: Any, seed: int) -> None:
        """Draw, and write the picture.

        Raises:
            ConfigError: a label that is not known, or halves of images of one row.
            DataError: an image cannot be read, or the picture not written.
            CheckpointError: the model says nothing that a level could be chosen from.
        """
        try:
            picture = self.picture(labels, images, samples, choice or Sample(), seed)
        except ValueError as error:
            raise CheckpointError(f"cannot generate with {self.run}: {error}") from error
        try:
            picture.save(file)
        except OSError as error:
            raise DataError(f"--out {file} cannot be written: {error.strerror or error}") from error
        print(f"{file}: {picture.width} x {picture.height} pixels")

    def picture(self, labels: list[str], images: list[str], samples: int, choice: Stepwise, seed: int) -> Image:
        """Images of labels, or, where images are given, these with their lower halves drawn."""
        if images:
            if self.model.rows < 2:
                raise ConfigError(f"--image: the images of {self.run} are one row, without an upper half; leave it out")
            given = np.stack([self.read(Path(name)) for name in images])
            completed: Image = self.model.completions(given, samples, choice, seed)
            return completed
        drawn: Image = self.model.drawings(self.asked(labels), samples, choice, seed)
        return drawn

    def asked(self, prompts: list[str]) -> list[int | None]:
        """The classes of the labels; all of them where none is named, one None where there are none.

        Raises:
            ConfigError: a label that is not known.
        """
        for prompt in prompts:
            if prompt not in self.labels:
                known = f"of {', '.join(self.labels)}" if self.labels else "none: it was trained without labels"
                raise ConfigError(f"--prompt {prompt!r}: {self.run} knows {known}")
        return [self.labels.index(prompt) for prompt in prompts or self.labels] or [None]

    def read(self, file: Path) -> UInt8[np.ndarray, "H W C"]:
        """An image as the model reads images: scaled to their size, in their levels.

        Raises:
            DataError: it is none, or damaged.
        """
        model = self.model
        try:
            image = decode_image(file.read_bytes())
        except ImageError as error:
            raise DataError(f"{file}: {error}; give another --image") from error
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}; give another --image") from error
        return quantise(values(image, model.channels, (model.rows, model.columns)), model.levels)
