"""Trained models of pixels draw: images of the labels asked for, or what halves of images might go on as.

Each pixel costs the same, however many were drawn before: the carried state is all that the next one needs.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL.Image import Image

from pipeline.arguments import refuse
from pipeline.commands.generate.text import EOS, UNK, open_model, vocabulary
from pipeline.dataset.codecs.image import ImageError, load
from pipeline.dataset.codecs.pixel_levels import quantise, values
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Sample, Stepwise
from pipeline.tasks.pixel_model import PixelModel

# options of generation that count for an image
TAKES = {"out", "checkpoint", "prompt", "image", "samples", "seed", "temperature", "top_k", "top_p", "greedy"}


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
            ConfigError: it draws no images.
        """
        run, model, _ = open_model(name, checkpoint)
        if not isinstance(model, PixelModel):
            raise ConfigError(f"--out FILE.png: {run} ({type(model).__name__}) draws no images; see configs/pixels")
        tokenizer, _ = vocabulary(run / "tokenizer.json")
        known = sorted(set(tokenizer.get_vocab()) - {EOS, UNK})
        return cls(run, model, known if model.labels else [])

    def paint(self, choice: Any, arguments: argparse.Namespace) -> None:
        """Draw, and write the picture.

        Raises:
            ConfigError: a label that is not known, options of texts, or halves of images of one row.
            DataError: an image cannot be read, or the picture not written.
            CheckpointError: the model says nothing that a level could be chosen from.
        """
        refuse(arguments.given, TAKES, f"{self.run} ({type(self.model).__name__})")
        file: Path = arguments.out
        try:
            picture = self.picture(choice or Sample(), arguments)
        except ValueError as error:
            raise CheckpointError(f"cannot generate with {self.run}: {error}") from error
        try:
            picture.save(file)
        except OSError as error:
            raise DataError(f"--out {file} cannot be written: {error.strerror or error}") from error
        print(f"{file}: {picture.width} x {picture.height} pixels")

    def picture(self, choice: Stepwise, arguments: argparse.Namespace) -> Image:
        """What the command line asks for."""
        samples, seed = arguments.samples, arguments.seed
        if arguments.image:
            if self.model.rows < 2:
                raise ConfigError(f"--image: the images of {self.run} are one row, without an upper half; leave it out")
            given = np.stack([self.read(Path(name)) for name in arguments.image])
            completed: Image = self.model.completions(given, samples, choice, seed)
            return completed
        drawn: Image = self.model.drawings(self.asked(arguments.prompt or []), samples, choice, seed)
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
            image = load(file.read_bytes())
        except ImageError as error:
            raise DataError(f"{file}: {error}; give another --image") from error
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}; give another --image") from error
        return quantise(values(image, model.channels, (model.rows, model.columns)), model.levels)
