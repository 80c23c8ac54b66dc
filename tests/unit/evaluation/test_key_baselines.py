"""Baselines from counts follow Laplace's rule."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.manifest import Dataset
from pipeline.dataset.music import KEYS, MusicSplit, Piece, write_pieces
from pipeline.evaluation.key_baselines import FREQUENCY, PREVIOUS, key_baselines, transitions


def split_of(folder: Path, name: str, *pieces: list[int]) -> MusicSplit:
    """Return pieces in which only the first key ever sounds."""
    frames = [np.array(piece, bool)[:, None] & (np.arange(KEYS) == 0) for piece in pieces]
    shard = write_pieces(folder / f"{name}.arrow", [Piece(str(n), each) for n, each in enumerate(frames)])
    entry = {"pieces": len(pieces), "frames": sum(map(len, pieces)), "shards": [shard._asdict()]}
    return MusicSplit.of(folder, name, entry)  # type: ignore[arg-type]


def test_the_nats_are_those_of_counts_by_hand(tmp_path: Path) -> None:
    train = split_of(tmp_path, "train", [1, 1, 0, 1], [0, 0, 0])
    held_out = split_of(tmp_path, "test", [0, 1, 1])
    assert transitions(train)[:, :, 0].tolist() == [[2, 1], [1, 1]]
    others = 87 * -math.log(6 / 7)  # five frames without the key, so (5 + 1) / (5 + 2)
    found = key_baselines(train, held_out)
    assert found[FREQUENCY] == pytest.approx(others - math.log(3 / 7))  # two of five frames with the key
    once = -math.log(2 / 5) - math.log(2 / 4)  # after a frame without it, then after one with it
    assert found[PREVIOUS] == pytest.approx(others + once / 2)


def test_generated_pieces_are_predicted_better_from_the_frame_before(tiny_music_dataset: Path) -> None:
    splits = Dataset.open(tiny_music_dataset).splits
    found = key_baselines(splits["train"], splits["validation"])
    assert found[PREVIOUS] < found[FREQUENCY]
