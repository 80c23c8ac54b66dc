"""The cost of a diagnosis as a share of the training steps between two of them, for three language models.

    python tests/benchmarks/bench_diagnosis.py [--steps 8] [--rounds 3] [--every 500]

Training steps of 2,048 tokens, and one diagnosis of 8 sequences of the same length with its plot, are timed
alternately, both by the CPU time of this process.
"""

import argparse
import importlib
import time
from statistics import median

import torch
import yaml
from results import Table, add_output

from pipeline.callbacks.diagnosis import SEQUENCES
from pipeline.data.batch import TokenBatch
from pipeline.evaluation.diagnosis import diagnose
from pipeline.evaluation.plots.diagnosis import diagnosis_picture
from pipeline.training.config import CONFIGS

VOCABULARY = 2048


def batch_of(rows: int, context: int) -> TokenBatch:
    """Random text."""
    tokens = torch.randint(VOCABULARY, (rows, context + 1))
    return TokenBatch(tokens[:, :-1], tokens[:, 1:], None, torch.arange(rows), rows * context, 0, None)


def measure(name: str, steps: int, rounds: int) -> tuple[float, float]:
    """Processor time of a step and of a diagnosis, medians, in seconds."""
    config = yaml.safe_load((CONFIGS / f"text/{name}.yaml").read_text())
    module, _, cls = config["model"]["class_path"].rpartition(".")
    arguments = config["model"]["init_args"]
    kept = {key: value for key, value in arguments.items() if key not in ("optimizer", "schedule")}
    task = getattr(importlib.import_module(module), cls)(VOCABULARY, **kept).train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3, fused=True)
    context = config["data"]["init_args"]["context"]
    trained, diagnosed = [], []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(steps):
            optimizer.zero_grad()
            (
                task.training_loss(task._read(batch := batch_of(2048 // context, context), {}), batch.targets) / 2048
            ).backward()
            optimizer.step()
        middle = time.process_time()
        found, maps = diagnose(task, batch_of(SEQUENCES, context))
        diagnosis_picture({"": found}, maps)
        trained.append((middle - began) / steps)
        diagnosed.append(time.process_time() - middle)
    return median(trained), median(diagnosed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=8, help="timed together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=500, help="steps from one diagnosis to the next")
    add_output(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = f"One every {options.every} steps, processor time, medians of {options.rounds} rounds."
    table = Table("diagnosis", "Diagnosis", about, options.output)
    for name in ("lstm", "conv", "transformer"):
        step, diagnosis = measure(name, options.steps, options.rounds)
        share = diagnosis / (options.every * step)
        table.add(model=name, ms_per_step=1000 * step, ms_per_diagnosis=1000 * diagnosis, share=share)


if __name__ == "__main__":
    main()
