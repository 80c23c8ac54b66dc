"""The cost of the journal and of Weights & Biases as a share of a training step.

    python tests/benchmarks/bench_tracking.py [--width 384] [--blocks 12] [--every 20]

Blocks of `every` steps end with a row: alternately of the journal alone, and of the journal with W&B (the real client,
offline). The cost of a row is compared with the block before it by the CPU time of all threads of this process, which
other programs disturb least. The wall time by which training is delayed is printed as well: it is much shorter, because
the client has a thread and a process of its own.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import yaml
from results import Table, add_output
from torch import nn

from pipeline.runs.run import Run
from pipeline.tracking.journal_logger import JournalLogger
from pipeline.tracking.wandb_logger import PatientWandbLogger

ROW = dict.fromkeys(("loss", "perplexity", "learning_rate", "tokens_per_second", "memory_gb", "data_wait", "norm"), 1.5)


def steps(width: int, every: int) -> Callable[[], None]:
    """Trains an LSTM language model for `every` steps of 8 windows of 64 tokens."""
    network = nn.ModuleList(
        [nn.Embedding(2048, width), nn.LSTM(width, width, batch_first=True), nn.Linear(width, 2048)]
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    tokens = torch.randint(2048, (8, 65))

    def train() -> None:
        for _ in range(every):
            logits = network[2](network[1](network[0](tokens[:, :-1]))[0])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def run_in(folder: Path) -> Run:
    """A run that has just begun."""
    run = Run(folder)
    run.create()
    run.write(dataset={"path": "none", "checksum": "none"})
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"trainer": {}, "model": {}, "data": {}, "tracking": {"project": "bench"}})
    )
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--every", type=int, default=20)
    add_output(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Print the table."""
    train = steps(options.width, options.every)
    alone, run = JournalLogger(folder / "alone"), run_in(folder / "both")
    journal, client = JournalLogger(run.path), PatientWandbLogger(run, "offline")
    journal.start_attempt(1, 0)
    client.start_attempt(1, 0)
    time.sleep(5)  # until the client has begun
    recorders = {"journal": [alone.log_metrics], "W&B too": [journal.log_metrics, client.log_metrics]}
    shares: dict[str, list[float]] = {name: [] for name in recorders}
    waits: dict[str, list[float]] = {name: [] for name in recorders}
    bare_steps: list[float] = []
    for block in range(1, options.blocks + 1):
        for name, loggers in recorders.items():
            began = time.process_time()
            train()
            trained = time.process_time()
            asked = time.perf_counter()
            for log in loggers:
                log({f"train/{key}": value for key, value in ROW.items()}, block * options.every)
            waits[name].append(time.perf_counter() - asked)
            time.sleep(1.2 if name == "W&B too" else 0.0)  # the client's thread looks once a second
            shares[name].append((time.process_time() - trained) / (trained - began))
            bare_steps.append((trained - began) / options.every)
    client.finish()
    core = resource.getrusage(resource.RUSAGE_CHILDREN)
    about = f"A row every {options.every} steps of {1000 * median(bare_steps):.2f} ms of processor time."
    table = Table("tracking", "Tracking", about, options.output)
    for name in recorders:
        share, waited = median(shares[name]), 1e6 * median(waits[name])
        table.add(written_to=name, share_of_the_steps=share, microseconds_that_training_waits=waited)
    beside = 1000 * (core.ru_utime + core.ru_stime) / options.blocks
    table.add(written_to="the client's own process, beside", milliseconds_per_row=beside)


if __name__ == "__main__":
    main()
