"""Batches of audio clips of similar length, within a budget of seconds, with transcripts or labels.

Legend: B rows, S samples, T positions of a transcript, K masks.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import IGNORE, LabelBatch, PairBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, Slice
from pipeline.data.pairs import BudgetedDataModule, decoder_side, predictions
from pipeline.dataset.codecs.audio import decode
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError
from pipeline.evaluation.plots.attention import attention_panels
from pipeline.evaluation.plots.spectrogram import Shown, with_spectrogram
from pipeline.generation.text_stream import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # spectrograms per row of a picture
NOTHING = np.zeros((0, 2), np.float32)


class Clips:
    """The clips of one split with their transcripts, read by slices of a global batch.

    Args:
        split: the rows.
        eos: EOS token of the transcripts.
        rate: samples per second.
        augmentation: augmentation of the sounds; None to disable.
        seed: seed of the augmentation.
    """

    def __init__(
        self, split: RecordSplit, eos: int, rate: int, augmentation: Augmentation | None = None, seed: int = 0
    ) -> None:
        self.split, self.eos, self.rate = split, eos, rate
        self.augmentation, self.seed = augmentation, seed

    def __len__(self) -> int:
        return self.split.samples

    @property
    def lengths(self) -> Ids:
        """The number of samples of each stored clip."""
        return self.split.numbers("samples")

    def predictions(self, ids: Ids) -> int:
        """Return the number of tokens of these clips' transcripts, with EOS tokens."""
        return predictions(self.split, ids)

    def __getitems__(self, part: Slice) -> PairBatch | LabelBatch:
        source, padding = self.sounds(part)
        inputs, targets = decoder_side(self.split, part.ids, self.eos)
        positions = source[0].numel() + targets.numel()
        empty = padding + int((targets == IGNORE).sum())
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        return PairBatch(source, inputs, targets, ids, part.predictions, empty, positions, part.step)

    def sounds(self, part: Slice) -> tuple[tuple[Tensor, ...], int]:
        """Return the encoder's input, see `PairBatch`, and the number of padding samples."""
        rows = [self._row(int(sample), part.epoch) for sample in part.ids]
        waves, time_masks, mel_masks = zip(*rows, strict=True)
        lengths = np.array([len(wave) for wave in waves])
        keep = np.arange(lengths.max()) < lengths[:, None]
        matrix = np.zeros(keep.shape, np.float32)
        matrix[keep] = np.concatenate(waves)
        parts = matrix, keep, _stacked(time_masks), _stacked(mel_masks)
        return tuple(torch.from_numpy(part) for part in parts), int((~keep).sum())

    def _row(self, sample: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a clip's sound and masks; one silent sample in a row that only fills the batch."""
        if sample == NO_SAMPLE:
            return np.zeros(1, np.float32), NOTHING, NOTHING
        wave = decode(self.split.value("audio", self.split.row_of(sample)))
        if self.augmentation is None:
            return wave, NOTHING, NOTHING
        chance = np.random.default_rng((self.seed, epoch, sample))
        return self.augmentation.wave(wave, self.rate, chance), *self.augmentation.masks(chance)


def _stacked(masks: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the masks of all rows (B, K, 2), padded with empty masks."""
    stacked = np.zeros((len(masks), max(map(len, masks)), 2), np.float32)
    for row, each in enumerate(masks):
        stacked[row, : len(each)] = each
    return stacked


class LabelledClips(Clips):
    """The clips of one split with one label each.

    Args:
        classes: class index by the token of a label.
        split: the rows.
        eos: EOS token of the labels.
        rate: samples per second.
        augmentation: augmentation of the sounds; None to disable.
        seed: seed of the augmentation.
    """

    def __init__(
        self,
        classes: Ids,
        split: RecordSplit,
        eos: int,
        rate: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(split, eos, rate, augmentation, seed)
        self.classes = classes

    def predictions(self, ids: Ids) -> int:
        """Return the number of labels, one per clip."""
        return int((ids != NO_SAMPLE).sum())

    def __getitems__(self, part: Slice) -> LabelBatch:
        source, padding = self.sounds(part)
        labels = [IGNORE if sample == NO_SAMPLE else self._class(int(sample)) for sample in part.ids]
        ids = torch.from_numpy(np.ascontiguousarray(part.ids))
        positions = source[0].numel()
        return LabelBatch(source, torch.tensor(labels), ids, part.predictions, padding, positions, part.step)

    def _class(self, sample: int) -> int:
        return int(self.classes[int(self.split.target(sample)[0])])


class AudioDataModule(BudgetedDataModule):
    """Audio clips with their transcripts or labels, in batches of at most `global_batch_seconds`.

    Args:
        dataset: a directory made by `unroll prepare audio`.
        global_batch_seconds: maximum seconds of a global batch with padding: number of clips times the longest clip.
        per_device_batch_seconds: approximate maximum seconds per device; gradient accumulation is derived.
        augmentation: augmentation in training, different in each epoch. Changed speed may exceed the budget.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order and of the augmentation.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: a clip of the training split is longer than the budget.
    """

    shown = "name"

    def __init__(
        self,
        dataset: Path | str,
        global_batch_seconds: float = 60.0,
        per_device_batch_seconds: float | None = None,
        augmentation: Augmentation | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        opened = Dataset.open(dataset, kind="audio")
        self.rate: int = opened.manifest["audio"]["rate"]
        limit = None if per_device_batch_seconds is None else int(per_device_batch_seconds * self.rate)
        if global_batch_seconds * self.rate < 1:
            raise ConfigError(f"global_batch_seconds={global_batch_seconds} must cover at least one sample")
        if limit is not None and limit < 1:
            raise ConfigError(f"per_device_batch_seconds={per_device_batch_seconds} must cover at least one sample")
        super().__init__(opened, int(global_batch_seconds * self.rate), limit, workers, seed)
        self.augmentation = augmentation

    @property
    def facts(self) -> DataFacts:
        """Vocabulary size or number of classes, and samples per second."""
        sizes = DataFacts(classes=len(self.labels)) if self.labels else self.dataset.facts
        return replace(sizes, rate=self.rate)

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of their classes; empty if clips have transcripts."""
        return list(self.dataset.manifest["audio"].get("labels", []))

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data: seconds, of which a prediction is the training mean."""
        clips = self.samples("train")
        seconds = float(clips.lengths.sum()) / self.rate
        return Unit("seconds of audio", seconds / clips.predictions(np.arange(len(clips))))

    def samples(self, name: str) -> Clips:
        """Return the clips of the split `name`; only training clips are augmented."""
        augmentation = self.augmentation if name == "train" else None
        clips = self.split(name), self.dataset.target.eos, self.rate, augmentation, self.seed
        return LabelledClips(self._classes, *clips) if self.labels else Clips(*clips)

    def too_long(self, longest: int, name: str) -> str:
        """Return the error message for a clip that exceeds the budget."""
        seconds = longest / self.rate
        return (
            f"the longest clip of {self.dataset.path} ({name}) takes {seconds:.2f} s, more than "
            f"global_batch_seconds={self.budget / self.rate:g}: increase it, or prepare with a lower --max-seconds"
        )

    def show(self, name: str, count: int) -> tuple[tuple[Tensor, ...], list[str]]:
        """Return the first clips of a split as a batch's `source`, and their names."""
        samples = self.samples(name)
        rows = range(min(count, samples.split.rows))
        source, _ = samples.sounds(Slice(samples.split.first_samples[list(rows)], 0, 0, 0, 0))
        return source, [samples.split.value(self.shown, row) for row in rows]

    def illustrate(self, source: tuple[Tensor, ...]) -> list[dict[str, Shown]]:
        """Return the sounds of a batch's `source` with their spectrograms."""
        rows = zip(*source[:2], strict=True)
        return [{"sound": with_spectrogram(wave[keep].cpu().numpy(), self.rate)} for wave, keep in rows]

    def picture(self, source: tuple[Tensor, ...], tokens: Sequence[int], looks: Float[np.ndarray, "T S"]) -> "Figure":
        """Plot the attention of each token of a text over the spectrogram of a sound.

        Args:
            source: a batch's `source` of one row.
            tokens: the text.
            looks: attention weights of each token over the positions of the sound.
        """
        [row] = self.illustrate(source)
        return attention_panels(row["sound"].picture, written(self.tokenizer, tokens), looks[:, None], COLUMNS)

    @cached_property
    def _classes(self) -> Ids:
        vocabulary = self.tokenizer.get_vocab()
        tokens = [vocabulary[label] for label in self.labels]
        classes = np.full(self.dataset.target.size, IGNORE, np.int64)
        classes[tokens] = np.arange(len(tokens))
        return classes
