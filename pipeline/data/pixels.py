"""Batches of images as pixel sequences, for autoregressive models or for classifiers.

Legend: B rows, T positions (rows x columns x channels of an image), N images.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pipeline.data.batch import IGNORE, LabelBatch, TokenBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.batch_warmup import BatchWarmup, Growth
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError, DataError


class PixelFormat(TypedDict):
    """The manifest's description of a dataset of images."""

    rows: int
    columns: int
    channels: int
    levels: int
    labels: list[str]


class Images:
    """The images of one split, read by slices of a global batch.

    Args:
        split: the rows.
        positions: positions per image, T.
        levels: number of levels of a pixel.
    """

    def __init__(self, split: RecordSplit, positions: int, levels: int) -> None:
        self.split, self.positions, self.levels = split, positions, levels

    def __len__(self) -> int:
        return self.split.rows

    def pixels(self, ids: Ids) -> UInt8[np.ndarray, "B T"]:
        """Return the levels of these images in raster order; zeros in a row that only fills the batch."""
        found = np.zeros((len(ids), self.positions), np.uint8)
        for row, sample in enumerate(ids.tolist()):
            if sample != NO_SAMPLE:
                found[row] = np.frombuffer(self.split.value("image", sample), np.uint8)
        return found

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets in these images."""
        raise NotImplementedError

    def __getitems__(self, part: Slice) -> TokenBatch | LabelBatch:
        """Return the batch of a slice."""
        raise NotImplementedError

    def batch(self, ids: Ids) -> TokenBatch | LabelBatch:
        """Return these images as a batch, outside any plan."""
        return self.__getitems__(Slice(ids, self.predictions(ids), 0, 0, 0))

    @cached_property
    def classes(self) -> Int64[np.ndarray, " N"]:
        """The class of each image; negative without a label."""
        return self.split.numbers("label")


class Drawn(Images):
    """Images as sequences for next-pixel prediction.

    Args:
        opened: whether each sequence starts with its label, else with a constant start token.
        split: the rows.
        positions: positions per image, T.
        levels: number of levels of a pixel.
    """

    def __init__(self, opened: bool, split: RecordSplit, positions: int, levels: int) -> None:
        super().__init__(split, positions, levels)
        self.opened = opened

    def predictions(self, ids: Ids) -> int:
        """Return the number of pixels of these images; 0 in a row that only fills the batch."""
        return self.positions * int((ids != NO_SAMPLE).sum())

    def __getitems__(self, part: Slice) -> TokenBatch:
        there = part.ids != NO_SAMPLE
        targets = self.pixels(part.ids).astype(np.int64)
        opening = np.full(len(part.ids), self.levels, np.int64)
        if self.opened:
            opening[there] += 1 + self.classes[part.ids[there]]
        inputs = np.concatenate([opening[:, None], targets[:, :-1]], 1)
        targets[~there] = IGNORE
        tensors = torch.from_numpy(inputs), torch.from_numpy(targets), None
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        return TokenBatch(*tensors, ids, part.predictions, part.step, None)


class Labelled(Images):
    """Images as sequences of brightness values with one label each.

    Args:
        order: index of the pixel read at each position.
        split: the rows.
        positions: positions per image, T.
        levels: number of levels of a pixel.
    """

    def __init__(self, order: Ids, split: RecordSplit, positions: int, levels: int) -> None:
        super().__init__(split, positions, levels)
        self.order = order

    def predictions(self, ids: Ids) -> int:
        """Return the number of labels, one per image."""
        return int((ids != NO_SAMPLE).sum())

    def __getitems__(self, part: Slice) -> LabelBatch:
        source = self.source(part.ids)
        labels = torch.from_numpy(np.where(part.ids == NO_SAMPLE, IGNORE, self.classes[part.ids]))
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        return LabelBatch(source, labels, ids, part.predictions, 0, source[0].numel(), part.step)

    def source(self, ids: Ids) -> tuple[Tensor, ...]:
        """Return the encoder's input for these images: brightness values (B, T) from 0 to 1."""
        bright = self.pixels(ids)[:, self.order].astype(np.float32) / (self.levels - 1)
        return (torch.from_numpy(bright),)


class PixelDataModule(PlannedDataModule):
    """Images for autoregressive models, pixel by pixel; training in an order drawn from the seed.

    Args:
        dataset: a directory made by `unroll prepare pixels`.
        labels: start each sequence with its label, to allow class-conditional generation.
        global_batch_size: images per global batch, over all processes and micro-batches.
        per_device_batch_size: maximum images per device; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order.
        batch_warmup: smaller global batches in the first steps; None for none.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: labels are required but missing, or a batch size is below 1.
    """

    def __init__(
        self,
        dataset: Path | str,
        labels: bool = False,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
        batch_warmup: BatchWarmup | None = None,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="pixels"), workers)
        self.growth = Growth(batch_warmup, global_batch_size)
        if global_batch_size < 1:
            raise ConfigError(f"global_batch_size={global_batch_size} must be at least 1")
        self.global_batch_size, self.limit, self.seed = global_batch_size, per_device_batch_size, seed
        self.about: PixelFormat = self.dataset.manifest["pixels"]
        self.positions: int = self.about["rows"] * self.about["columns"] * self.about["channels"]
        self.opened = labels
        if labels and not self.labels:
            raise ConfigError(f"labels=true: the images of {self.dataset.path} have no labels; use labels=false")

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of their classes."""
        return list(self.about["labels"])

    @property
    def facts(self) -> DataFacts:
        """The vocabulary of levels, start token and labels, and the shape of an image."""
        about, size = self.about, self.about["levels"] + 1 + len(self.labels) * self.opened
        return DataFacts(
            size,
            levels=about["levels"],
            rows=about["rows"],
            columns=about["columns"],
            channels=about["channels"],
        )

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit("images", 1 / self.positions)

    def samples(self, name: str) -> Images:
        """Return the images of the split `name`."""
        return Drawn(self.opened, self.split(name), self.positions, self.about["levels"])

    def plan(self, samples: Images) -> Plan:
        """Return an order drawn from the seed.

        Raises:
            ConfigError: there are not enough images for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} has {count} images, fewer than "
                f"global_batch_size={size}: decrease it or prepare more images"
            )
        return Shuffled(count, size, self.seed)

    def plan_evaluation(self, samples: Images) -> Plan:
        """Return every image exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """Return this process's part of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)


class PixelLabelDataModule(PixelDataModule):
    """Images for classifiers that read them pixel by pixel, in raster order or in a fixed permutation.

    Args:
        dataset: a directory made by `unroll prepare pixels`, with labels.
        permutation: seed of the order in which pixels are read; None for raster order.
        **pixels: global_batch_size, per_device_batch_size, workers and seed, as for a PixelDataModule.

    Raises:
        DataError: the dataset is missing, damaged, of the wrong kind or without labels.
        ConfigError: the permutation is negative, or a batch size is below 1.
    """

    shown = "name"

    def __init__(self, dataset: Path | str, permutation: int | None = None, **pixels: Any) -> None:
        super().__init__(dataset, **pixels)
        if not self.labels:
            raise DataError(f"the images of {self.dataset.path} have no labels: prepare them with one folder per class")
        self.order = np.arange(self.positions)
        if permutation is not None and permutation < 0:
            raise ConfigError(f"permutation={permutation} must be a seed of at least 0, or null for raster order")
        if permutation is not None:
            self.order = np.random.default_rng(permutation).permutation(self.positions)

    @property
    def facts(self) -> DataFacts:
        """The number of classes."""
        return DataFacts(classes=len(self.labels))

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit("images")

    def samples(self, name: str) -> Labelled:
        """Return the images of the split `name`."""
        return Labelled(self.order, self.split(name), self.positions, self.about["levels"])

    def show(self, name: str, count: int) -> tuple[tuple[Tensor, ...], list[str]]:
        """Return the first images of a split as a batch's `source`, and their names."""
        samples = self.samples(name)
        rows = range(min(count, len(samples)))
        return samples.source(np.arange(len(rows))), [samples.split.value("name", row) for row in rows]
