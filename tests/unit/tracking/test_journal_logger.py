"""Lightning's logs become lines of the journal, from rank zero alone, and a full disk does not fail training."""

import errno
import json
import os
import warnings

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image
from torch.utils.data import DataLoader

from pipeline.evaluation.plots.spectrogram import with_spectrogram
from pipeline.runs.journal import FILE, read_journal
from pipeline.tracking.journal_logger import JournalLogger


class Slope(LightningModule):
    """Learns one number; logs the step as its loss."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        self.log("train/loss", float(self.global_step))
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.log("val/loss", batch.float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_what_the_trainer_logs_is_in_the_journal(tmp_path):
    logger = JournalLogger(tmp_path / "run")
    trainer = Trainer(
        max_epochs=2,
        logger=logger,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Slope(), DataLoader(range(3)), DataLoader(range(3)))
    found = read_journal(tmp_path / "run")
    assert found.series("train/loss").values == [0, 1, 2, 3, 4, 5]
    assert found.series("val/loss").values == [1.0, 1.0]
    assert found.series("epoch").values[-1] == 1
    assert found.torn == 0


def test_rows_without_a_clock_carry_the_last_known_one(tmp_path):
    logger = JournalLogger(tmp_path, tokens=100, seconds=7.0)
    logger.start_attempt(3, 10)
    logger.log_metrics({"train/loss": torch.tensor(2.5), "tokens": 110.0, "seconds": 8.5}, 11)
    logger.log_metrics({"val/loss": 2.0, "epoch": 1}, 11)
    logger.log_metrics({"tokens": 120, "seconds": 9.0}, 12)  # a clock alone writes no row
    logger.log_samples([{"prompt": "a", "text": "b"}], 12)
    logger.finalize("success")
    logger.log_metrics({"test/loss": 1.0}, 12)
    found = read_journal(tmp_path)
    assert found.attempts == {3: 10}
    assert found.series("train/loss") == ([11], [110], [8.5], [2.5])
    assert found.series("val/loss") == ([11], [110], [8.5], [2.0])
    assert found.series("epoch").values == [1]
    assert found.series("test/loss") == ([12], [120], [9.0], [1.0])
    assert [(row["tokens"], row["seconds"]) for row in found.samples()] == [(120, 9.0)]
    assert len(found.rows) == 4
    assert found.keys() == ["epoch", "test/loss", "train/loss", "val/loss"]


def test_a_second_attempt_supersedes_rows_of_the_first_beyond_its_start(tmp_path):
    first, second = JournalLogger(tmp_path), JournalLogger(tmp_path)
    first.start_attempt(1, 0)
    for step in (10, 20, 30):
        first.log_metrics({"train/loss": 1.0}, step)
    second.start_attempt(2, 20)
    second.log_metrics({"train/loss": 2.0}, 30)
    assert read_journal(tmp_path).series("train/loss").values == [1.0, 1.0, 2.0]


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = JournalLogger(tmp_path)
    logger.start_attempt(1, 0)
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_samples([], 1)
    assert not (tmp_path / FILE).exists()


def test_a_full_disk_is_reported_once_and_costs_no_row(tmp_path, monkeypatch):
    logger = JournalLogger(tmp_path)

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.warns(UserWarning, match="No space left"):
            logger.log_metrics({"train/loss": 1.0}, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            logger.log_metrics({"train/loss": 2.0}, 2)
        with pytest.warns(UserWarning, match="lacks its last 2 records"):
            logger.finalize("failed")
    logger.log_metrics({"train/loss": 3.0}, 3)
    found = read_journal(tmp_path).series("train/loss")
    assert (found.steps, found.values) == ([1, 2, 3], [1.0, 2.0, 3.0])


def test_a_row_of_which_half_fitted_on_the_disk_is_written_again(tmp_path, monkeypatch):
    logger, write = JournalLogger(tmp_path), os.write
    logger.log_metrics({"train/loss": 1.0}, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:9]))
        with pytest.warns(UserWarning, match="only 9 of"):
            logger.log_metrics({"train/loss": 2.0}, 2)
    logger.log_metrics({"train/loss": 3.0}, 3)
    assert read_journal(tmp_path).series("train/loss").values == [1.0, 2.0, 3.0]


def test_pictures_are_stored_in_the_run_with_their_step(tmp_path):
    logger = JournalLogger(tmp_path)
    for step in (5, 9):
        logger.log_pictures([Image.new("RGB", (step, 4)), Image.new("RGB", (step, 3))], step)
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("pictures", 5), ("pictures", 9)]
    sizes = [[Image.open(tmp_path / name).size for name in line["pictures"].values()] for line in lines]
    assert sizes == [[(5, 4), (5, 3)], [(9, 4), (9, 3)]]


def test_sounds_are_stored_with_their_spectrograms(tmp_path):
    logger = JournalLogger(tmp_path)
    tone = np.sin(np.arange(800) / 4).astype(np.float32) / 2
    logger.log_sounds([with_spectrogram(tone, 8000)], 3)
    logger.finalize("success")
    played, rate = soundfile.read(tmp_path / "pictures" / "step-00000003-sounds-1.wav")
    assert rate == 8000
    assert np.abs(played - tone).max() < 1e-4
    assert Image.open(tmp_path / "pictures" / "step-00000003-spectrograms-1.png").size == (3 * 7, 3 * 129)
