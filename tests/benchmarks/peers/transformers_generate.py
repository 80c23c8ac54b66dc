"""Generates greedily with GPT-2 of Hugging Face's transformers from one token, up to given lengths."""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

work = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
torch.manual_seed(1)
size = work["size"]
positions = max(work["lengths"]) + 1
shape = {"n_positions": positions, "n_embd": size["width"], "n_layer": size["depth"], "n_head": size["heads"]}
shape |= {"activation_function": "gelu_pytorch_tanh"}  # in one kernel
model = GPT2LMHeadModel(GPT2Config(vocab_size=size["vocab_size"], **shape)).eval()
prompt = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.ones(1, 1, dtype=torch.long)}
found = {}
for length in (8, *work["lengths"]):  # the first prepares
    began = time.perf_counter(), time.process_time()
    made = model.generate(
        **prompt, max_new_tokens=length, min_new_tokens=length, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    assert made.shape[1] == length + 1
    found[str(length)] = [
        (time.perf_counter() - began[0]) / length * 1e3,
        (time.process_time() - began[1]) / length * 1e3,
    ]
Path(work["output"]).write_text(json.dumps(found))
