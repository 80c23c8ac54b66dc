"""Trains DLinear or PatchTST of neuralforecast on given series, windows drawn at random."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from clock import Clock
from neuralforecast import NeuralForecast, models
from neuralforecast.losses.pytorch import MSE

work = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
torch.set_flush_denormal(True)
values = np.load(work["series"])  # steps, series
clock = Clock(work)


class Steps(pytorch_lightning.Callback):
    """Reports to the clock."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        clock.step(outputs["loss"].item() if trainer.global_step > work["steps"] - work["every"] else None)


stamps = pd.date_range("2016-07-01", periods=len(values), freq="h")
table = pd.concat(pd.DataFrame({"unique_id": str(n), "ds": stamps, "y": values[:, n]}) for n in range(values.shape[1]))
model = getattr(models, work["model"])(
    h=work["horizon"],
    input_size=work["context"],
    loss=MSE(),
    max_steps=work["steps"],
    learning_rate=work["lr"],
    batch_size=1,  # series, all of whose windows are copied in each step: the more, the slower
    windows_batch_size=work["windows"],
    optimizer=torch.optim.Adam,
    optimizer_kwargs={"fused": True},
    gradient_clip_val=work["clip"],
    scaler_type="identity",
    val_check_steps=10**6,
    random_seed=1,
    accelerator="cpu",
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
    callbacks=[Steps()],
    **work["arguments_of_peer"],
)
NeuralForecast([model], freq="h").fit(table)
clock.write(sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad))
