"""Batches of whole pieces of music: the frames of each piece, and for each frame the next one as the target.

The first frame of a piece is read and not predicted, as in Bai, Kolter and Koltun (2018).

Legend: B rows, T positions of the longest piece, N pieces, K keys.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool

from pipeline.data.batch import MusicBatch
from pipeline.data.batch_plan import NO_SAMPLE, Ids, Slice
from pipeline.data.pairs import BudgetedDataModule
from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.music import KEYS, MusicSplit
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError


class Pieces:
    """The pieces of one split, read by slices of a global batch.

    Args:
        split: the pieces.
        transpose: maximum number of semitones by which a piece is moved up or down.
        seed: seed of these moves.
    """

    def __init__(self, split: MusicSplit, transpose: int = 0, seed: int = 0) -> None:
        self.split, self.transpose, self.seed = split, transpose, seed

    def __len__(self) -> int:
        return self.split.pieces

    @property
    def lengths(self) -> Ids:
        """Number of targets of each piece."""
        return self.split.lengths - 1

    def predictions(self, ids: Ids) -> int:
        """Return the number of targets of these pieces; 0 in a row that only fills the batch."""
        return int(self.lengths[ids[ids != NO_SAMPLE]].sum())

    def __getitems__(self, part: Slice) -> MusicBatch:
        nothing = np.zeros((1, KEYS), bool)
        pieces = [nothing if number == NO_SAMPLE else self._piece(int(number), part.epoch) for number in part.ids]
        lengths = np.array([len(piece) - 1 for piece in pieces])
        inside = np.arange(max(1, lengths.max())) < lengths[:, None]
        inputs, targets = np.zeros((2, *inside.shape, KEYS), bool)
        inputs[inside] = np.concatenate([piece[:-1] for piece in pieces])
        targets[inside] = np.concatenate([piece[1:] for piece in pieces])
        return MusicBatch(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            torch.from_numpy(inside),
            torch.from_numpy(np.ascontiguousarray(part.ids)),
            part.predictions,
            int(inside.size - inside.sum()),
            inside.size,
            part.step,
        )

    def _piece(self, number: int, epoch: int) -> Bool[np.ndarray, "T K"]:
        frames = self.split.piece(number)
        if not self.transpose:
            return frames
        keys = np.flatnonzero(frames.any(0))
        moved = int(np.random.default_rng((self.seed, epoch, number)).integers(-self.transpose, self.transpose + 1))
        # No key leaves the keyboard.
        return np.roll(frames, min(max(moved, -int(keys.min())), KEYS - 1 - int(keys.max())), 1)


class MusicDataModule(BudgetedDataModule):
    """Pieces of similar length, in batches of at most `global_batch_tokens` frames.

    Args:
        dataset: a directory made by `unroll prepare music`.
        global_batch_tokens: maximum frames of a global batch with padding: number of pieces times the longest piece.
            A longer piece is a batch of its own, so 1 trains on one piece per step.
        per_device_batch_tokens: approximate maximum frames per device; gradient accumulation is derived.
        transpose: in training, move each piece in each epoch by up to this number of semitones.
        workers: loader processes; 0 reads in the training process.
        seed: seed of the order and of the moves.

    Raises:
        DataError: the dataset is missing, damaged or of the wrong kind.
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        dataset: Path | str,
        global_batch_tokens: int = 2048,
        per_device_batch_tokens: int | None = None,
        transpose: int = 0,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        opened = Dataset.open(dataset, kind="music")
        super().__init__(opened, global_batch_tokens, per_device_batch_tokens, workers, seed)
        if not 0 <= transpose < KEYS:
            raise ConfigError(f"transpose={transpose}: expected 0 to {KEYS - 1} semitones")
        self.transpose = transpose

    @property
    def facts(self) -> DataFacts:
        """Frames of a quarter note."""
        return DataFacts(steps_per_beat=self.dataset.manifest["music"]["steps_per_beat"])

    @property
    def unit(self) -> Unit:
        """The unit of speeds and amounts of training data."""
        return Unit("frames")

    def samples(self, name: str) -> Pieces:
        """Return the pieces of the split `name`; those of training are moved."""
        return Pieces(self.split(name), self.transpose if name == "train" else 0, self.seed)

    def check_longest(self, longest: int, name: str) -> None:
        """Accept pieces of any length: a long one is a batch of its own."""
