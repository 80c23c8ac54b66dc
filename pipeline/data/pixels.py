"""Images become batches: their pixels in a row, each to be predicted from those before it, or all read for a label.

Legend: B rows, T positions (rows x columns x channels of an image), N images.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from pipeline.data.batch import IGNORE, LabelBatch, TokenBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, InOrder, Plan, Share, Shuffled, Slice
from pipeline.data.module import PlannedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import ConfigError, DataError


class Images:
    """The images of one split, read by slices of a global batch.

    Args:
        split: the rows.
        positions: of an image, T.
        levels: that a pixel can have.
    """

    def __init__(self, split: RecordSplit, positions: int, levels: int) -> None:
        self.split, self.positions, self.levels = split, positions, levels

    def __len__(self) -> int:
        return self.split.rows

    def pixels(self, ids: Ids) -> UInt8[np.ndarray, "B T"]:
        """The levels of these images, row by row; black where there is none."""
        found = np.zeros((len(ids), self.positions), np.uint8)
        for row, sample in enumerate(ids.tolist()):
            if sample != NO_SAMPLE:
                found[row] = np.frombuffer(self.split.value("image", sample), np.uint8)
        return found

    def predictions(self, ids: Ids) -> int:
        """Targets in these images."""
        raise NotImplementedError

    def __getitems__(self, part: Slice) -> Any:
        """The batch."""
        raise NotImplementedError

    def batch(self, ids: Ids) -> Any:
        """These images, outside any plan."""
        return self.__getitems__(Slice(ids, self.predictions(ids), 0, 0, 0))

    @cached_property
    def classes(self) -> Int64[np.ndarray, " N"]:
        """The class of each image, negative where it has none."""
        return self.split.numbers("label")


class Drawn(Images):
    """Images as sequences to be continued.

    Args:
        opened: each opens with its label, else all with the token after the last level.
        **images: as `Images` takes them.
    """

    def __init__(self, opened: bool, *images: Any) -> None:
        super().__init__(*images)
        self.opened = opened

    def predictions(self, ids: Ids) -> int:
        """Pixels of these images; none in a row that only fills the batch."""
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
    """Images as sequences of brightnesses with one label each.

    Args:
        order: which pixel is read at each position.
        **images: as `Images` takes them.
    """

    def __init__(self, order: Ids, *images: Any) -> None:
        super().__init__(*images)
        self.order = order

    def predictions(self, ids: Ids) -> int:
        """Labels: one an image."""
        return int((ids != NO_SAMPLE).sum())

    def __getitems__(self, part: Slice) -> LabelBatch:
        source = self.source(part.ids)
        labels = torch.from_numpy(np.where(part.ids == NO_SAMPLE, IGNORE, self.classes[part.ids]))
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        return LabelBatch(source, labels, ids, part.predictions, 0, source[0].numel(), part.step)

    def source(self, ids: Ids) -> tuple[Tensor, ...]:
        """What an encoder is given of these images: brightnesses (B, T) from 0 to 1."""
        bright = self.pixels(ids)[:, self.order].astype(np.float32) / (self.levels - 1)
        return (torch.from_numpy(bright),)


class PixelDataModule(PlannedDataModule):
    """Images for models that draw them, pixel by pixel: training in an order drawn from the seed.

    Args:
        dataset: a directory made by `unroll prepare pixels`.
        labels: open each image with its label, so that it can be asked for.
        global_batch_size: images of a global batch, over all processes and micro-batches.
        per_device_batch_size: most images that a device takes at once; gradient accumulation is derived.
        workers: loader processes; 0 reads in the training process.
        seed: decides the order.

    Raises:
        DataError: the dataset is missing, damaged or of another kind.
        ConfigError: labels are wanted and there are none, or a batch size below 1.
    """

    def __init__(
        self,
        dataset: Path,
        labels: bool = False,
        global_batch_size: int = 32,
        per_device_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(Dataset.open(dataset, kind="pixels"), workers)
        if global_batch_size < 1:
            raise ConfigError(f"global_batch_size={global_batch_size} must be at least 1")
        self.global_batch_size, self.limit, self.seed = global_batch_size, per_device_batch_size, seed
        self.about: dict[str, Any] = self.dataset.manifest["pixels"]
        self.positions: int = self.about["rows"] * self.about["columns"] * self.about["channels"]
        self.opened = labels
        if labels and not self.labels:
            raise ConfigError(f"labels: the images of {self.dataset.path} have none; leave it out")

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of their classes."""
        return list(self.about["labels"])

    @property
    def facts(self) -> DataFacts:
        """Levels, opening and labels as a vocabulary, and the shape of an image."""
        shape = {name: self.about[name] for name in ("levels", "rows", "columns", "channels")}
        return DataFacts(shape["levels"] + 1 + len(self.labels) * self.opened, **shape)

    def samples(self, name: str) -> Any:
        """The images of the split `name`."""
        return Drawn(self.opened, self.split(name), self.positions, self.about["levels"])

    def plan(self, samples: Images) -> Plan:
        """An order drawn from the seed.

        Raises:
            ConfigError: there are not enough images for one global batch.
        """
        count, size = len(samples), self.global_batch_size
        if count < size:
            raise ConfigError(
                f"the training split of {self.dataset.path} holds {count} images, fewer than "
                f"global_batch_size={size}: lower it or prepare more"
            )
        return Shuffled(count, size, self.seed)

    def plan_evaluation(self, samples: Images) -> Plan:
        """Every image exactly once."""
        return InOrder(len(samples), self.global_batch_size)

    def divide(self, world_size: int, rank: int) -> Share:
        """This process's rows of a global batch."""
        return Share.of(self.global_batch_size, self.limit, world_size, rank)


class PixelLabelDataModule(PixelDataModule):
    """Images for classifiers that read them pixel by pixel, as they lie or in another order that is always the same.

    Args:
        dataset: a directory made by `unroll prepare pixels`, with labels.
        permutation: seed of the order in which pixels are read; None reads row by row.
        **pixels: as of a PixelDataModule: global_batch_size, per_device_batch_size, workers and seed.

    Raises:
        DataError: the dataset is missing, damaged, of another kind or without labels.
        ConfigError: a negative seed, or a batch size below 1.
    """

    shown = "name"

    def __init__(self, dataset: Path, permutation: int | None = None, **pixels: Any) -> None:
        super().__init__(dataset, **pixels)
        if not self.labels:
            raise DataError(f"the images of {self.dataset.path} have no labels: prepare them in a folder a class")
        self.order = np.arange(self.positions)
        if permutation is not None and permutation < 0:
            raise ConfigError(f"permutation={permutation} must be a seed from 0 up, or null to read row by row")
        if permutation is not None:
            self.order = np.random.default_rng(permutation).permutation(self.positions)

    @property
    def facts(self) -> DataFacts:
        """The number of classes."""
        return DataFacts(classes=len(self.labels))

    def samples(self, name: str) -> Labelled:
        """The images of the split `name`."""
        return Labelled(self.order, self.split(name), self.positions, self.about["levels"])

    def show(self, name: str, count: int) -> tuple[tuple[Tensor, ...], list[str]]:
        """The first images of a split as a batch's `source`, and their names."""
        samples = self.samples(name)
        rows = range(min(count, len(samples)))
        return samples.source(np.arange(len(rows))), [samples.split.value("name", row) for row in rows]
