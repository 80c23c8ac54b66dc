"""Batches of pieces are whole, the same for any number of processes, and moved only in training."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.batch_plan import NO_SAMPLE, MicroBatches, Share, Slice
from pipeline.data.music import MusicDataModule
from pipeline.errors import ConfigError, DataError


def test_a_batch_has_the_frames_of_its_pieces_and_the_next_ones(tiny_music_dataset: Path) -> None:
    samples = MusicDataModule(tiny_music_dataset).samples("train")
    ids = np.array([4, 0, NO_SAMPLE])
    batch = samples.__getitems__(Slice(ids, samples.predictions(ids), 0, 5, 0))
    assert batch.inputs.shape == batch.targets.shape == (*batch.inside.shape, 88)
    for row, piece in enumerate(ids[:-1]):
        frames = samples.split.piece(int(piece))
        size = len(frames) - 1
        assert batch.inside[row].tolist() == [True] * size + [False] * (batch.inside.shape[1] - size)
        np.testing.assert_array_equal(batch.inputs[row, :size], frames[:-1])
        np.testing.assert_array_equal(batch.targets[row, :size], frames[1:])
        assert not batch.inputs[row, size:].any()
    assert not batch.inside[-1].any()
    assert batch.predictions == int(batch.inside.sum())
    assert (batch.step, batch.ids.tolist()) == (5, ids.tolist())
    assert (batch.padding, batch.positions) == (int((~batch.inside).sum()), batch.inside.numel())


def test_a_row_that_only_fills_the_batch_may_be_alone(tiny_music_dataset: Path) -> None:
    samples = MusicDataModule(tiny_music_dataset).samples("train")
    batch = samples.__getitems__(Slice(np.array([NO_SAMPLE]), 7, 0, 0, 0))
    assert (batch.inputs.shape, batch.inside.tolist(), batch.predictions) == ((1, 1, 88), [[False]], 7)


def test_a_budget_of_one_frame_is_one_piece_per_step(tiny_music_dataset: Path) -> None:
    data = MusicDataModule(tiny_music_dataset, global_batch_tokens=1, seed=3)
    samples = data.samples("train")
    plan = data.plan(samples)
    orders = [np.concatenate([plan.batch(epoch, k) for k in range(len(plan))]).tolist() for epoch in (0, 1)]
    assert len(plan) == len(samples)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(samples)))


@pytest.mark.parametrize(("world", "limit"), [(1, None), (2, None), (4, 40)])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_any_number_of_processes_reads_each_piece_once(
    tiny_music_dataset: Path, world: int, limit: int | None, split: str
) -> None:
    data = MusicDataModule(tiny_music_dataset, 300, limit)
    samples = data.samples(split)
    plan = data.plan(samples) if split == "train" else data.plan_evaluation(samples)
    shares = [Share.of_budget(300, limit, world, rank) for rank in range(world)]
    parts = [part for share in shares for part in MicroBatches(plan, share, samples.predictions)]
    read = np.concatenate([part.ids for part in parts])
    assert sorted(read[read != NO_SAMPLE].tolist()) == list(range(len(samples)))
    frames = sum(int(samples.__getitems__(part).inside.sum()) for part in parts)
    assert frames == samples.split.frames - samples.split.pieces  # the first frame of a piece is not predicted


def test_a_move_depends_on_seed_epoch_and_piece_alone_and_keeps_all_keys(tiny_music_dataset: Path) -> None:
    data = MusicDataModule(tiny_music_dataset, transpose=40, seed=2)
    samples, held_out = data.samples("train"), data.samples("validation")
    moves = set()
    for epoch in range(4):
        for number in range(6):
            original, moved = samples.split.piece(number), samples._piece(number, epoch)
            [by] = {int(new.argmax()) - int(old.argmax()) for old, new in zip(original, moved, strict=True)}
            np.testing.assert_array_equal(np.roll(original, by, 1), moved)
            assert moved.sum() == original.sum()
            moves.add(by)
            again = MusicDataModule(tiny_music_dataset, transpose=40, seed=2).samples("train")._piece(number, epoch)
            np.testing.assert_array_equal(again, moved)
    assert len(moves) > 8
    np.testing.assert_array_equal(held_out._piece(0, 1), held_out.split.piece(0))


def test_invalid_settings_are_rejected_in_one_line(tiny_music_dataset: Path, tiny_pairs_dataset: Path) -> None:
    with pytest.raises(ConfigError, match="transpose=-1: expected 0 to 87 semitones"):
        MusicDataModule(tiny_music_dataset, transpose=-1)
    with pytest.raises(ConfigError, match="global_batch_tokens=0 must be at least 1"):
        MusicDataModule(tiny_music_dataset, 0)
    with pytest.raises(DataError, match="expected kind 'music'"):
        MusicDataModule(tiny_pairs_dataset)
    assert MusicDataModule(tiny_music_dataset).facts.known() == {"steps_per_beat": 1}
