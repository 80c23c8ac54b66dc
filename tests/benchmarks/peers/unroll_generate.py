"""Generates greedily with a Transformer of this package from one token, up to given lengths."""

import json
import sys
import time
from pathlib import Path

import torch

from pipeline.generation.sampling import Greedy, Limits, generate
from pipeline.models.transformer import TransformerLanguageModel

work = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
torch.manual_seed(1)
model = TransformerLanguageModel(**work["size"]).eval()
found = {}
for length in (8, *work["lengths"]):  # the first prepares
    began = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        [[made, *_]] = generate(model, [[5]], Greedy(), Limits(length))
    assert len(made) == length
    found[str(length)] = [
        (time.perf_counter() - began[0]) / length * 1e3,
        (time.process_time() - began[1]) / length * 1e3,
    ]
Path(work["output"]).write_text(json.dumps(found))
