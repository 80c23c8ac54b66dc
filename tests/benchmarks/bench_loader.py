"""The loader against a bare numpy memmap reader, in turns, and the seconds from a command to its first step.

    python tests/benchmarks/bench_loader.py [--tokens 20000000] [--rounds 5] [--starts 3]

Both readers take the same windows of 256 tokens in the same order, 32 a batch, and hand over inputs and targets as
int64 tensors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

import data_prep.text.command
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.text import TextDataModule
from pipeline.dataset.manifest import Dataset

CONTEXT, ROWS, BATCHES = 256, 32, 400
WANTED = 0.8  # of the bare reader's speed


def ours(data: TextDataModule) -> float:
    """Seconds for BATCHES batches through the DataLoader that training uses."""
    windows = data.samples("train")
    loader = data._loader(windows, MicroBatches(data.plan(windows), Share(), windows.predictions))
    batches = iter(loader)
    next(batches)
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return time.perf_counter() - began


def bare(data: TextDataModule, file: Path) -> float:
    """Seconds for the same windows from one flat memmap."""
    windows = data.samples("train")
    plan = data.plan(windows)
    tokens = np.memmap(file, np.uint16, mode="r")
    began = time.perf_counter()
    for step in range(1, BATCHES + 1):
        starts = np.maximum(plan.batch(0, step) * CONTEXT, 1)
        rows = np.stack([tokens[start - 1 : start + CONTEXT] for start in starts]).astype(np.int64)
        both = torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())
        assert both[0].shape == (ROWS, CONTEXT)
    return time.perf_counter() - began


def first_steps(folder: Path, repeats: int) -> Iterator[float]:
    """Seconds from `unroll fit` to the end of its first step, by the journal's own clock."""
    config = Path(__file__).parents[2] / "configs" / "text" / "lstm.yaml"
    command = [sys.executable, "-m", "pipeline", "fit", "--config", str(config), "--resume", "never", "--run"]
    keys = ["--data.init_args.dataset", str(folder / "data"), "--trainer.log_every_n_steps", "1"]
    keys += ["--trainer.max_steps", "3", "--trainer.limit_val_batches", "0", "--trainer.devices", "1"]
    for number in range(repeats):
        run = folder / "runs" / f"start{number}"
        process = subprocess.Popen([*command, str(run), *keys], env={**os.environ, "WANDB_MODE": "disabled"})
        began = time.perf_counter()
        while not has_row(run / "journal.jsonl") and process.poll() is None:
            time.sleep(0.01)
        yield time.perf_counter() - began
        process.wait()


def has_row(journal: Path) -> bool:
    """Whether the journal shows a step."""
    if not journal.exists():
        return False
    lines = journal.read_text().splitlines()
    return any("train/loss" in json.loads(line) for line in lines if line.endswith("}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = np.random.default_rng(0)
        letters = draw.integers(97, 123, options.tokens, dtype=np.uint8)
        letters[::500] = 10
        (folder / "text.txt").write_bytes(letters.tobytes())
        source = [str(folder / "text.txt"), "--documents", "line", "--tokenizer", "byte"]
        data_prep.text.command.main([*source, "--output", str(folder / "data")])
        split = Dataset.open(folder / "data").splits["train"]
        split.read(0, split.tokens).tofile(folder / "flat")
        for order in ("shuffled", "contiguous", "documents"):
            data = TextDataModule(folder / "data", order, CONTEXT, ROWS)  # type: ignore[arg-type]
            pairs = [(ours(data), bare(data, folder / "flat")) for _ in range(options.rounds)]
            ratio = median(theirs / mine for mine, theirs in pairs)
            below = "" if ratio >= WANTED else f": below {WANTED}"
            rate = ROWS * CONTEXT * BATCHES / median(mine for mine, _ in pairs)
            print(f"loader, {order}: {rate:,.0f} tokens/s, {ratio:.2f} of a bare memmap reader{below}", flush=True)
        if seconds := list(first_steps(folder, options.starts)):
            print(f"command to first step: {median(seconds):.1f} s (median of {len(seconds)})")


if __name__ == "__main__":
    main()
