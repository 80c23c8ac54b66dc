"""Batches of images with captions, decoded in the loader, with a random crop per sample.

A batch contains captions of similar length and one image for each. The crop of a training sample is drawn from
(seed, epoch, sample) alone, so it is the same on any number of processes and after any interruption.

Legend: B rows, S pixels of a side, T positions of a caption, P regions.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pipeline.data.batch import IGNORE, PairBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, Slice
from pipeline.data.pairs import BudgetedDataModule, decoder_side, predictions
from pipeline.dataset.codecs.image import ImageError, View, decode_image, pixels, square
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError, SampleError
from pipeline.evaluation.plots.attention import photograph
from pipeline.generation.text_stream import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Views:
    """Random square crops of images in training.

    Args:
        smallest: smallest side of the crop, as a fraction of the image's shorter side.
        flip: mirror half of the crops.
        seed: seed of the crops, with epoch and sample.
    """

    def __init__(self, smallest: float, flip: bool, seed: int) -> None:
        self.smallest, self.flip, self.seed = smallest, flip, seed

    def __call__(self, image: Image.Image, epoch: int, sample: int) -> View:
        """Return the crop of this sample in this epoch."""
        size, across, down, mirrored = np.random.default_rng((self.seed, epoch, sample)).random(4)
        side = min(image.size) * (self.smallest + (1 - self.smallest) * size)
        mirror = self.flip and mirrored < 0.5
        return View((image.width - side) * across, (image.height - side) * down, side, mirror)


class CaptionedImages:
    """The captions of one split with their images, read by slices of a global batch.

    Args:
        split: the rows.
        eos: EOS token of the captions.
        image_size: pixels per side of the image shown to the model.
        image_tokens: positions that an image counts for in the budget.
        views: crops of the images; None for the largest central square.
    """

    def __init__(
        self, split: RecordSplit, eos: int, image_size: int, image_tokens: int, views: Views | None = None
    ) -> None:
        self.split, self.eos = split, eos
        self.image_size, self.image_tokens, self.views = image_size, image_tokens, views

    def __len__(self) -> int:
        return self.split.samples

    @property
    def lengths(self) -> Ids:
        """The positions of each sample: its caption, the EOS token and `image_tokens`."""
        return self.split.target_lengths + 1 + self.image_tokens

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets in these captions, with EOS tokens; 0 in a row that only fills the batch."""
        return predictions(self.split, ids)

    def __getitems__(self, part: Slice) -> PairBatch:
        images = np.zeros((len(part.ids), 3, self.image_size, self.image_size), np.uint8)
        for place, sample in enumerate(part.ids):
            if sample != NO_SAMPLE:
                images[place] = pixels(self.image(self.split.row_of(int(sample)), part.epoch, int(sample)))
        inputs, targets = decoder_side(self.split, part.ids, self.eos)
        padding = int((targets == IGNORE).sum())
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        source = (torch.from_numpy(images),)
        return PairBatch(source, inputs, targets, ids, part.predictions, padding, targets.numel(), part.step)

    def image(self, row: int, epoch: int = 0, sample: int = 0) -> Image.Image:
        """Return the crop of a row's image.

        Raises:
            SampleError: the image is damaged.
        """
        smallest = 1.0 if self.views is None else self.views.smallest
        try:
            whole = decode_image(self.split.value("image", row), round(self.image_size / smallest))
        except ImageError as error:
            name = self.split.value("name", row)
            raise SampleError(
                f"{self.split.path}, {self.split.name}: {name} (row {row}) is a {error}, so the dataset is damaged: "
                "prepare it again with `unroll prepare captions`"
            ) from error
        view = View.central(*whole.size) if self.views is None else self.views(whole, epoch, sample)
        return square(whole, view, self.image_size)


class ImageCaptionDataModule(BudgetedDataModule):
    """Images with captions, in batches of at most `global_batch_tokens` positions.

    Args:
        dataset: a directory made by `unroll prepare captions`.
        image_size: pixels per side of the square shown to the model.
        smallest_crop: smallest side of training crops, as a fraction of the image's shorter side; evaluations use
            the largest central square.
        flip: mirror half of the training crops; only if captions do not depend on left and right.
        global_batch_tokens: maximum positions of a global batch: number of samples times the longest caption, plus
            `image_tokens` per sample.
        per_device_batch_tokens: approximate maximum positions per device; gradient accumulation is derived.
        image_tokens: positions that an image counts for.
        workers: loader processes, which decode images; 0 decodes in the training process.
        seed: seed of the order and of the crops.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: a caption of the training split is longer than the budget, or a size is out of range.
    """

    def __init__(
        self,
        dataset: Path | str,
        image_size: int = 128,
        smallest_crop: float = 0.8,
        flip: bool = False,
        global_batch_tokens: int = 4096,
        per_device_batch_tokens: int | None = None,
        image_tokens: int = 48,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        if image_size < 1 or image_tokens < 0 or not 0 < smallest_crop <= 1:
            raise ConfigError(
                f"image_size={image_size} must be at least 1, image_tokens={image_tokens} at least 0, "
                f"and smallest_crop={smallest_crop} in (0, 1]"
            )
        opened = Dataset.open(dataset, kind="captions")
        super().__init__(opened, global_batch_tokens, per_device_batch_tokens, workers, seed)
        self.image_size, self.image_tokens = image_size, image_tokens
        self.views = Views(smallest_crop, flip, seed)

    @property
    def facts(self) -> DataFacts:
        """Vocabulary size and image size."""
        return replace(super().facts, image_size=self.image_size)

    def samples(self, name: str) -> CaptionedImages:
        """Return the captions of the split `name`."""
        views = self.views if name == "train" else None
        return CaptionedImages(self.split(name), self.dataset.target.eos, self.image_size, self.image_tokens, views)

    def show(self, name: str, count: int) -> tuple[tuple[UInt8[Tensor, "B 3 S S"]], list[str]]:
        """Return the first images of a split as a batch's `source`, and their names."""
        samples = self.samples(name)
        rows = range(min(count, samples.split.rows))
        shown = np.stack([pixels(samples.image(row)) for row in rows])
        return (torch.from_numpy(shown),), [samples.split.value("name", row) for row in rows]

    def picture(self, source: tuple[Tensor, ...], tokens: Sequence[int], looks: Float[np.ndarray, "T P"]) -> "Figure":
        """Plot the attention of each token of a text over an image.

        Args:
            source: a batch's `source` of one row.
            tokens: the text.
            looks: attention weights of each token over the regions.
        """
        return photograph(source[0][0].cpu().numpy(), written(self.tokenizer, tokens), looks)
