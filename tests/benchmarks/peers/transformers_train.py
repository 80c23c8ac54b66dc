"""Trains GPT-2 of Hugging Face's transformers by its Trainer on given batches.

Where the defaults are slow, a faster choice of the library replaces them: the fused optimizer, the activation in one
kernel, no check of each loss for NaN.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from clock import Clock
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

work = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
torch.set_flush_denormal(True)
batches = np.load(work["batches"])
clock = Clock(work)


class Rows(torch.utils.data.IterableDataset):
    """The rows of all batches in their order."""

    def __iter__(self):
        for row in batches.reshape(-1, batches.shape[-1]):
            yield {"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)}


class Steps(TrainerCallback):
    """Reports to the clock; the losses are those that the Trainer logs."""

    def on_step_end(self, args, state, control, **more):
        clock.step()

    def on_log(self, args, state, control, logs=None, **more):
        if "loss" in logs:
            clock.losses += [logs["loss"]] * work["every"]


torch.manual_seed(1)
size = work["size"]
none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
model = GPT2LMHeadModel(
    GPT2Config(
        vocab_size=size["vocab_size"],
        n_positions=batches.shape[-1],
        n_embd=size["width"],
        n_layer=size["depth"],
        n_head=size["heads"],
        activation_function="gelu_pytorch_tanh",
        initializer_range=size["width"] ** -0.5,  # as ours, so that the losses can be compared
        **none,
    )
)
arguments = TrainingArguments(
    output_dir=work["folder"],
    use_cpu=True,
    per_device_train_batch_size=batches.shape[1],
    max_steps=work["steps"],
    learning_rate=work["optimizer"]["lr"],
    adam_beta1=work["optimizer"]["betas"][0],
    adam_beta2=work["optimizer"]["betas"][1],
    weight_decay=work["optimizer"]["weight_decay"],
    max_grad_norm=1.0,
    optim="adamw_torch_fused",
    lr_scheduler_type="constant",
    logging_steps=work["every"],
    logging_nan_inf_filter=False,
    report_to="none",
    save_strategy="no",
    accelerator_config={"dispatch_batches": False},
    dataloader_pin_memory=False,
    disable_tqdm=True,
    seed=1,
)
Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Steps()]).train()
clock.write(sum(parameter.numel() for parameter in model.parameters()))
