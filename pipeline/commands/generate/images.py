"""The front end of pixel models: images of given labels, or completions of the upper halves of images.

The cost per pixel is constant, because the carried state summarizes all previous pixels.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL.Image import Image

from pipeline.commands.generate.options import settings
from pipeline.commands.generate.trained import Trained, open_model, unknown_label
from pipeline.dataset.codecs.image import ImageError, read_image
from pipeline.dataset.codecs.pixel_levels import quantise, values
from pipeline.errors import CheckpointError, ConfigError, DataError
from pipeline.generation.sampling import Sample, Stepwise
from pipeline.generation.vocabulary import vocabulary
from pipeline.runs.vocabulary_rows import labels_of
from pipeline.tasks.pixel_model import PixelModel


def main(trained: Trained, arguments: argparse.Namespace) -> None:
    """Write a grid of images.

    Raises:
        UserError: a checkpoint, image or label does not exist, or an option is invalid.
    """
    if arguments.out is None:
        raise ConfigError(f"{trained} generates images. Give --out FILE.png")
    file, (choice, _) = arguments.out, settings(arguments)
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--out={file}: expected a .png file")
    choice = choice or Sample()
    assert isinstance(choice, Stepwise)  # --beam is not an option of this front end
    generator = ImageGenerator.open(trained.name, arguments.checkpoint)
    generator.write(file, arguments.prompt or [], arguments.image or [], arguments.samples, choice, arguments.seed)


@dataclass(frozen=True)
class ImageGenerator:
    """A trained pixel model with its labels.

    Args:
        run: directory of the run or exported model.
        model: the model in eval mode.
        labels: labels in the order of their classes; empty for a model without labels.
    """

    run: Path
    model: PixelModel
    labels: list[str]

    @classmethod
    def open(cls, name: str, checkpoint: str) -> "ImageGenerator":
        """Load a run or an exported model.

        Raises:
            CheckpointError: the run, its checkpoint or its tokenizer does not exist.
        """
        run, model, _ = open_model(name, checkpoint)
        tokenizer, _ = vocabulary(run / "tokenizer.json")
        return cls(run, model, labels_of(tokenizer) if model.labels else [])

    def write(
        self, file: Path, labels: list[str], images: list[str], samples: int, choice: Stepwise, seed: int
    ) -> None:
        """Generate images and write them to a file.

        Raises:
            ConfigError: a label is unknown, or the images have one row and therefore no upper half.
            DataError: an image cannot be read, or the file cannot be written.
            CheckpointError: the model returns logits that are not finite.
        """
        try:
            picture = self.grid(labels, images, samples, choice, seed)
        except ValueError as error:
            raise CheckpointError(f"cannot generate with {self.run}: {error}") from error
        try:
            picture.save(file)
        except OSError as error:
            raise DataError(f"--out={file}: cannot be written: {error.strerror or error}") from error
        print(f"{file}: {picture.width} x {picture.height} pixels")

    def grid(self, labels: list[str], images: list[str], samples: int, choice: Stepwise, seed: int) -> Image:
        """Return images of the labels, or completions of the given images."""
        if images:
            if self.model.rows < 2:
                raise ConfigError(f"--image: images of {self.run} have one row and no upper half. Omit --image")
            given = np.stack([self.read(Path(name)) for name in images])
            return self.model.completions(given, samples, choice, seed)
        return self.model.drawings(self.classes(labels), samples, choice, seed)

    def classes(self, prompts: list[str]) -> list[int | None]:
        """Return the classes of the labels (default: all of them); one None for a model without labels.

        Raises:
            ConfigError: a label is unknown.
        """
        for prompt in prompts:
            if prompt not in self.labels:
                raise ConfigError(f"--prompt={prompt}: {unknown_label(self.run, self.labels)}")
        return [self.labels.index(prompt) for prompt in prompts or self.labels] or [None]

    def read(self, file: Path) -> UInt8[np.ndarray, "H W C"]:
        """Read an image, scaled and quantised as in training.

        Raises:
            DataError: the file is not an image, or is damaged.
        """
        model = self.model
        try:
            image = read_image(file)
        except ImageError as error:
            raise DataError(f"--image={file}: {error}. Give another image") from error
        return quantise(values(image, model.channels, (model.rows, model.columns)), model.levels)
