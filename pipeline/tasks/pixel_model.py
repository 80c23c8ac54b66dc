"""Autoregressive pixel models in raster order with any causal network, conditioned on a class label.

Van den Oord, Kalchbrenner and Kavukcuoglu (2016), "Pixel Recurrent Neural Networks"; class conditioning: van den Oord
et al. (2016), "Conditional Image Generation with PixelCNN Decoders".

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

COLUMNS = 8  # images per row without labels
HIDDEN = (70, 90, 150)  # color of the part to complete


class PixelModel(LevelModel):
    """Next-pixel prediction with any causal network.

    Args:
        network: maps (B, T, D) and a state to (B, T, D) and a state; has a `width` D.
        vocab_size: levels, EOS and labels, set from the data.
        levels: number of levels of a pixel, set from the data.
        rows: H, set from the data.
        columns: W, set from the data.
        channels: C, set from the data.
        head: settings of the embedding and the output layer.
        optimizer: creates the optimizer from parameter groups.
        schedule: multiplies the learning rate at each step.

    Raises:
        ValueError: the network was built for rows of another length.
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
        expected = columns * channels
        if (actual := getattr(network, "columns", expected)) != expected:
            raise ValueError(
                f"network.columns={actual}: expected {expected}, the levels in a row of the images. "
                "Use a PixelCNNModel, which sets it from the data"
            )
        super().__init__(network, vocab_size, levels, head, optimizer, schedule)
        self.rows, self.columns, self.channels = rows, columns, channels

    @property
    def positions(self) -> int:
        """T, the number of levels in an image."""
        return self.rows * self.columns * self.channels

    def preview_callbacks(self, run: Path) -> list[Callback]:
        """Return the callback that shows generated images and completions."""
        return [Paintings()]

    def loss_metrics(self, loss: float) -> dict[str, float]:
        """Return nats per level, perplexity, nats per image and bits per dimension."""
        metrics = super().loss_metrics(loss)
        return {**metrics, "nats_per_image": loss * self.positions, "bits_per_dimension": loss / math.log(2)}

    def draw(
        self, given: Sequence[Sequence[int]], labels: Sequence[int | None], choice: Stepwise, seeds: Sequence[int]
    ) -> UInt8[np.ndarray, "B H W C"]:
        """Return images that are generated pixel by pixel.

        Args:
            given: the first levels of each image, the same number for all; empty to generate whole images.
            labels: the class of each image; None if the model has no labels.
            choice: how a level is chosen.
            seeds: one per image.

        Raises:
            ValueError: the logits are not finite.
        """
        known = len(given[0])
        prompts = [[self.opening(label), *levels] for label, levels in zip(labels, given, strict=True)]
        forward = partial(self.within, ends=False)
        drawn = list(stream(forward, prompts, choice, Limits(self.positions - known), seeds, self.device))
        whole = np.concatenate([np.array(given, np.uint8).reshape(len(given), known), np.array(drawn, np.uint8).T], 1)
        return whole.reshape(-1, self.rows, self.columns, self.channels)

    def drawings(self, labels: Sequence[int | None], samples: int, choice: Stepwise, seed: int) -> Image.Image:
        """Return one picture with a row of samples for each label, or rows of eight without labels.

        Args:
            labels: classes, or one None.
            samples: number of images per label.
            choice: how a level is chosen.
            seed: seed of the first sample of each label.
        """
        repeated = [label for label in labels for _ in range(samples)]
        seeds = [seed + sample for _ in labels for sample in range(samples)]
        images = self.draw([[] for _ in repeated], repeated, choice, seeds)
        return album([image_of_levels(image, self.levels) for image in images], samples if len(labels) > 1 else COLUMNS)

    def completions(
        self, images: UInt8[np.ndarray, "B H W C"], samples: int, choice: Stepwise, seed: int
    ) -> Image.Image:
        """Return one picture with a row for each image: its upper half, completions of it, and the original.

        A model with labels is conditioned on the label that makes the upper half most likely.
        """
        half = self.rows // 2
        given = images[:, :half].reshape(len(images), -1).tolist()
        prompts = [one for one in ((levels, self.likeliest(levels)) for levels in given) for _ in range(samples)]
        seeds = [seed + sample for _ in given for sample in range(samples)]
        drawn = self.draw([levels for levels, _ in prompts], [label for _, label in prompts], choice, seeds)
        cells = []
        for image, completed in zip(images, np.split(drawn, len(images)), strict=True):
            upper = image_of_levels(image, self.levels).convert("RGB")
            upper.paste(HIDDEN, (0, half, self.columns, self.rows))
            cells += [upper, *(image_of_levels(each, self.levels) for each in (*completed, image))]
        return album(cells, samples + 2)

    @torch.no_grad()
    def likeliest(self, levels: Sequence[int]) -> int | None:
        """Return the class under which the first levels of an image are most likely; None without classes."""
        if not self.labels:
            return None
        read = torch.tensor([[self.opening(label), *levels] for label in range(self.labels)], device=self.device)
        logits, _ = self(read[:, :-1])
        log_probabilities = logits.float().log_softmax(-1).gather(-1, read[:, 1:, None])
        return int(log_probabilities.sum((1, 2)).argmax())
