"""Trains a Transformer of JoeyNMT on given parallel text, in batches of a number of sentences."""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from clock import Clock
from joeynmt.training import TrainManager, train

work = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
torch.set_flush_denormal(True)
clock = Clock(work)
step, manager_of = TrainManager._train_step, TrainManager.__init__
managers = []


def timed(self, batch):
    """A step begins where the one before has ended, with its update of the weights."""
    if clock.losses:
        clock.step()
    found = step(self, batch)
    clock.losses.append(found[0])
    return found


def kept(self, *given, **named):
    managers.append(self)
    manager_of(self, *given, **named)


TrainManager._train_step, TrainManager.__init__ = timed, kept
torch.optim.AdamW = partial(torch.optim.AdamW, fused=True)  # JoeyNMT has no option for it; its default is slower
size = work["size"]
side = {
    "type": "transformer",
    "num_layers": size["depth"],
    "num_heads": size["heads"],
    "embeddings": {"embedding_dim": size["width"], "scale": True},
    "hidden_size": size["width"],
    "ff_size": size["hidden"],
    "dropout": 0.0,
    "layer_norm": "pre",
}
language = {"max_length": 100, "level": "word", "voc_limit": work["vocabulary"], "voc_min_freq": 1}
train(
    0,
    1,
    {
        "name": "peer",
        "joeynmt_version": "2.3.0",
        "model_dir": work["folder"],
        "use_cuda": False,
        "fp16": False,
        "random_seed": 1,
        "data": {
            "train": work["train"],
            "dev": work["dev"],
            "dataset_type": "plain",
            "src": {"lang": "src", **language},
            "trg": {"lang": "trg", **language},
        },
        "model": {"encoder": side, "decoder": side, "tied_softmax": True, "tied_embeddings": False},
        "testing": {"beam_size": 1, "batch_size": 32, "eval_metrics": []},
        "training": {
            "optimizer": "adamw",
            "adam_betas": work["optimizer"]["betas"],
            "weight_decay": work["optimizer"]["weight_decay"],
            "learning_rate": work["optimizer"]["lr"],
            "learning_rate_min": 0.0,
            "clip_grad_norm": 1.0,
            "scheduling": "exponential",
            "decrease_factor": 1.0,  # a constant learning rate
            "normalization": "tokens",
            "batch_size": work["sentences"],
            "batch_type": "sentence",
            "epochs": 1000,
            "updates": work["steps"] + 1,
            "validation_freq": 10**9,
            "logging_freq": work["every"],
            "early_stopping_metric": "loss",
            "keep_best_ckpts": 1,
        },
    },
    skip_test=True,
)
clock.write(sum(parameter.numel() for parameter in managers[0].model.parameters()))
