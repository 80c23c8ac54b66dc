"""The seeds of a step's dropout are unchanged between versions."""

import random
from unittest.mock import Mock

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from pipeline.callbacks.per_step_seed import Randomness, seed_of
from tests.golden.recorded import Golden


def test_the_seed_of_numbers_is_unchanged(golden: Golden) -> None:
    parts = [(), (0,), (1,), (1, 0), (0, 1), (1, 0, 0, 0), (1, 7, 2, 3), (-1, 2**70)]
    golden("seeds", "of numbers", {str(each): seed_of(*each) for each in parts})


def test_the_generators_of_a_micro_batch_are_unchanged(golden: Golden) -> None:
    found = {}
    for seed, step, index, rank in [(1, 0, 0, 0), (1, 0, 1, 0), (1, 6, 20, 0), (1, 6, 20, 3), (2, 6, 20, 3)]:
        trainer = Mock(Trainer, accumulate_grad_batches=3, global_step=step, global_rank=rank)
        Randomness(seed).on_train_batch_start(trainer, Mock(LightningModule), None, index)
        drawn = torch.initial_seed(), torch.rand(2), np.random.random(2), random.random()
        found[f"seed {seed}, step {step}, micro-batch {index} of 3 a step, rank {rank}"] = drawn
    golden("seeds", "of micro-batches", found, within=1e-9)
