"""A model of pixels predicts each pixel's level from those before it, row by row, and hears its label all the time.

Van den Oord, Kalchbrenner and Kavukcuoglu (2016), "Pixel Recurrent Neural Networks"; a class as condition: van den Oord
et al. (2016), "Conditional Image Generation with PixelCNN Decoders". Any causal network can be the one that predicts.

Legend: B images, T positions (rows x columns x channels), H rows, W columns, C channels.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import nn

from pipeline.callbacks.previews.images import Paintings
from pipeline.dataset.codecs.pixel_levels import album, image_of_levels
from pipeline.generation.sampling import Limits, Stepwise, stream
from pipeline.optim import AdamW, OptimizerCallable, Schedule
from pipeline.tasks.level_model import LevelModel
from pipeline.tasks.task import Writes
from pipeline.tasks.token_prediction import TokenHead

COLUMNS = 8  # images in a row, where rows have no meaning
HIDDEN = (70, 90, 150)  # the colour of what is not given


class PixelModel(LevelModel):
    """Next-pixel prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, opening and labels; the data knows it.
        levels: that a pixel can have; the data knows it.
        rows: H; the data knows it.
        columns: W; the data knows it.
        channels: C; the data knows it.
        head: how tokens become vectors and vectors become predictions.
        optimizer: makes the optimizer from parameter groups.
        schedule: what the learning rate is multiplied by at each step.

    Raises:
        ValueError: a network made for rows of another length.
    """

    writes: Writes = "image"

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        levels: int,
        rows: int,
        columns: int,
        channels: int,
        head: TokenHead = TokenHead(),  # noqa: B008  # frozen
        optimizer: OptimizerCallable = AdamW,
        schedule: Schedule | None = None,
    ) -> None:
        wide = columns * channels
        if (known := getattr(network, "columns", wide)) != wide:
            raise ValueError(
                f"network.columns={known}, a row of the images has {wide} levels: leave it to a PixelCNNModel"
            )
        super().__init__(network, vocab_size, levels, head, optimizer, schedule)
        self.rows, self.columns, self.channels = rows, columns, channels

    @property
    def positions(self) -> int:
        """T."""
        return self.rows * self.columns * self.channels

    def shown(self, run: Path) -> list[Callback]:
        """Images that it draws, and halves that it completes."""
        return [Paintings()]

    def measured(self, loss: float) -> dict[str, float]:
        """Nats a level, the perplexity, nats of a whole image and bits a dimension."""
        found = super().measured(loss)
        return {**found, "nats_per_image": loss * self.positions, "bits_per_dimension": loss / math.log(2)}

    def draw(
        self, given: Sequence[Sequence[int]], labels: Sequence[int | None], choice: Stepwise, seeds: Sequence[int]
    ) -> UInt8[np.ndarray, "B H W C"]:
        """Images, drawn pixel by pixel.

        Args:
            given: the first levels of each image, as many of all; none where all is to be drawn.
            labels: the class of each; None where the model knows none.
            choice: how a level is chosen.
            seeds: one an image.

        Raises:
            ValueError: the model says nothing that a level could be chosen from.
        """
        known = len(given[0])
        prompts = [[self.opening(label), *levels] for label, levels in zip(labels, given, strict=True)]
        forward = partial(self.within, ends=False)
        drawn = list(stream(forward, prompts, choice, Limits(self.positions - known), seeds, self.device))
        whole = np.concatenate([np.array(given, np.uint8).reshape(len(given), known), np.array(drawn, np.uint8).T], 1)
        return whole.reshape(-1, self.rows, self.columns, self.channels)

    def drawings(self, labels: Sequence[int | None], samples: int, choice: Stepwise, seed: int) -> Image.Image:
        """A picture with so many images of each label, a row each; in rows of eight where there are no labels.

        Args:
            labels: classes, or one None.
            samples: images of each.
            choice: how a level is chosen.
            seed: of the first sample of each label.
        """
        asked = [label for label in labels for _ in range(samples)]
        seeds = [seed + sample for _ in labels for sample in range(samples)]
        images = self.draw([[] for _ in asked], asked, choice, seeds)
        return album([image_of_levels(image, self.levels) for image in images], samples if len(labels) > 1 else COLUMNS)

    def completions(
        self, images: UInt8[np.ndarray, "B H W C"], samples: int, choice: Stepwise, seed: int
    ) -> Image.Image:
        """A picture with a row for each image: its upper half, so many completions of that, and what it was.

        Of a model with labels, that label is heard which makes the upper half likeliest.
        """
        half = self.rows // 2
        given = images[:, :half].reshape(len(images), -1).tolist()
        asked = [one for one in ((levels, self.likeliest(levels)) for levels in given) for _ in range(samples)]
        seeds = [seed + sample for _ in given for sample in range(samples)]
        drawn = self.draw([levels for levels, _ in asked], [label for _, label in asked], choice, seeds)
        shown = []
        for image, completed in zip(images, np.split(drawn, len(images)), strict=True):
            upper = image_of_levels(image, self.levels).convert("RGB")
            upper.paste(HIDDEN, (0, half, self.columns, self.rows))
            shown += [upper, *(image_of_levels(each, self.levels) for each in (*completed, image))]
        return album(shown, samples + 2)

    @torch.no_grad()
    def likeliest(self, levels: Sequence[int]) -> int | None:
        """The class under which the first levels of an image are likeliest; None where no class is known."""
        if not self.labels:
            return None
        read = torch.tensor([[self.opening(label), *levels] for label in range(self.labels)], device=self.device)
        logits, _ = self(read[:, :-1])
        said = logits.float().log_softmax(-1).gather(-1, read[:, 1:, None])
        return int(said.sum((1, 2)).argmax())
