"""The loader of series against a bare numpy windowing loop, in turns.

    python tests/benchmarks/bench_series.py [--steps 1000000] [--rounds 5]

Both read the same windows of 336 + 96 steps in the same order, 256 a batch, and hand over context and horizon.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

import data_prep.series.command
from pipeline.data.batch_plan import MicroBatches, Share
from pipeline.data.series import SeriesDataModule

CONTEXT, HORIZON, ROWS, BATCHES = 336, 96, 256, 300


def ours(data: SeriesDataModule) -> float:
    """Seconds for BATCHES batches through the DataLoader that training uses."""
    windows = data.samples("train")
    loader = data._loader(windows, MicroBatches(data.plan(windows), Share(), windows.predictions))
    batches = iter(loader)
    next(batches)
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return time.perf_counter() - began


def bare(data: SeriesDataModule) -> float:
    """Seconds for the same windows cut from arrays in memory."""
    windows = data.samples("train")
    plan, values = data.plan(windows), np.array(windows.split.values)
    began = time.perf_counter()
    for step in range(1, BATCHES + 1):
        ends = windows.places[plan.batch(0, step), 1] + HORIZON
        rows = np.stack([values[end - CONTEXT - HORIZON : end] for end in ends])
        both = torch.from_numpy(rows[:, :CONTEXT]), torch.from_numpy(rows[:, CONTEXT:])
        assert both[0].shape == (ROWS, CONTEXT)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="of all series")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, draw = Path(name), np.random.default_rng(0)
        length = options.steps // 10
        columns = {f"series {n}": draw.normal(size=length).cumsum() for n in range(10)}
        parquet.write_table(pa.table({"step": np.arange(length), **columns}), folder / "table.parquet")
        began = time.perf_counter()
        assert data_prep.series.command.main([str(folder / "table.parquet"), "--output", str(folder / "data")]) == 0
        print(f"preparation: {options.steps / (time.perf_counter() - began):,.0f} steps/s")
        data = SeriesDataModule(folder / "data", CONTEXT, HORIZON, ROWS)
        pairs = [(ours(data), bare(data)) for _ in range(options.rounds)]
        ratio = median(theirs / mine for mine, theirs in pairs)
        rate = ROWS * BATCHES / median(mine for mine, _ in pairs)
        print(f"loader of series: {rate:,.0f} windows/s, {ratio:.2f} of a bare numpy loop")


if __name__ == "__main__":
    main()
