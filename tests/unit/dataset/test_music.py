"""Pieces are stored in eleven bytes per frame and read as they were written."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.music import KEYS, MusicSplit, Piece, write_pieces


def test_pieces_are_read_as_written(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    pieces = [Piece(f"piece {length}", chance.random((length, KEYS)) < 0.2) for length in (5, 2, 9)]
    shard = write_pieces(tmp_path / "train.arrow", pieces)
    split = MusicSplit.of(tmp_path, "train", {"pieces": 3, "frames": 16, "shards": [shard._asdict()]})
    assert shard.tokens == 16
    for opened in (split, pickle.loads(pickle.dumps(split))):
        assert (opened.names, opened.lengths.tolist()) == ([each.name for each in pieces], [5, 2, 9])
        for number, piece in enumerate(pieces):
            np.testing.assert_array_equal(opened.piece(number), piece.frames)
    assert split._packed.nbytes == 16 * 11
    with pytest.raises(IndexError, match="piece 3 is outside of the 3 pieces of 'train'"):
        split.piece(3)
