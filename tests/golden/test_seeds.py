"""Dropout of a step is drawn from the same seeds from version to version."""

import random
from typing import Any
from unittest.mock import Mock

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from pipeline.callbacks.per_step_seed import Randomness, seed_of


def test_numbers_give_the_seed_that_they_gave(golden: Any) -> None:
    parts = [(), (0,), (1,), (1, 0), (0, 1), (1, 0, 0, 0), (1, 7, 2, 3), (-1, 2**70)]
    golden("seeds", "of numbers", {str(each): seed_of(*each) for each in parts})


def test_a_micro_batch_begins_with_the_generators_that_it_had(golden: Any) -> None:
    found = {}
    for seed, step, index, rank in [(1, 0, 0, 0), (1, 0, 1, 0), (1, 6, 20, 0), (1, 6, 20, 3), (2, 6, 20, 3)]:
        trainer = Mock(Trainer, accumulate_grad_batches=3, global_step=step, global_rank=rank)
        Randomness(seed).on_train_batch_start(trainer, Mock(LightningModule), None, index)
        drawn = torch.initial_seed(), torch.rand(2), np.random.random(2), random.random()
        found[f"seed {seed}, step {step}, micro-batch {index} of 3 a step, rank {rank}"] = drawn
    golden("seeds", "of micro-batches", found, within=1e-9)
