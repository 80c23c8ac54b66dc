"""Histograms of gradients count every finite value once, between the smallest and the largest."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from pipeline.callbacks.gradients import BINS, Gradients, histogram
from pipeline.runs.journal import FILE
from pipeline.tracking.journal_logger import JournalLogger


@pytest.mark.numeric
def test_a_histogram_equals_numpy_s():
    values = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))
    found = histogram(values)
    counts, edges = np.histogram(values.numpy(), BINS, (float(values.min()), float(values.max())))
    assert sum(found["counts"]) == 350
    assert np.abs(np.array(found["counts"]) - counts).sum() <= 4  # a value on an edge may fall on either side
    np.testing.assert_allclose(found["edges"], edges, atol=1e-6)


def test_non_finite_values_are_left_out():
    found = histogram(torch.tensor([1.0, torch.nan, 3.0, -torch.inf]))
    assert (sum(found["counts"]), found["edges"][0], found["edges"][-1]) == (2, 1.0, 3.0)
    assert histogram(torch.tensor([torch.nan])) is None
    assert histogram(torch.zeros(0)) is None
    assert sum(histogram(torch.zeros(5))["counts"]) == 5


class Sum(LightningModule):
    """A model whose weight has the batch as gradient."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))

    def training_step(self, batch, _):
        return (self.used * batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_sets_are_logged_to_the_journal_every_few_steps(tmp_path):
    trainer = Trainer(
        max_steps=4,
        callbacks=[Gradients(2)],
        logger=JournalLogger(tmp_path),
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Sum(), DataLoader(torch.arange(8.0).reshape(4, 2)))
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    sets = [line for line in lines if line["kind"] == "gradients"]
    assert [line["step"] for line in sets] == [2, 4]
    assert [sorted(line["gradients"]) for line in sets] == [["used"], ["used"]]
    edges = sets[1]["gradients"]["used"]["edges"]
    assert (edges[0], edges[-1]) == (6.0, 7.0)  # the fourth batch


def test_zero_steps_are_rejected():
    with pytest.raises(ValueError, match=r"tracking\.gradients=0"):
        Gradients(0)
