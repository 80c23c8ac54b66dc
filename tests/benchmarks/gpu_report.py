"""A report of one CUDA device: tests, speed against plain PyTorch loops, memory, generation, a published recipe.

    python tests/benchmarks/gpu_report.py [--device cuda] [--tiny] [--seconds 540] [--rows NAME ...]
        [--shakespeare DATASET] [--output docs/benchmarks/gpu.json]

The rows are ordered by importance. Each runs in a process of its own, and the JSON file and its page are written after
each row: an interrupted report keeps its results, and rows that are not run again remain. No row begins after
`--seconds`. `--tiny --device cpu` runs small versions of the same rows for a test; their numbers are meaningless.

`--shakespeare` names a dataset for the row of that name (nanoGPT's recipe, 1.4697 nats per character):

    unroll prepare text input.txt --cut tail --validation-share 0.1 --test-share 0 --tokenizer character --output OUT
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the rows are forked: CUDA must not begin in this process
os.environ.setdefault("WANDB_MODE", "disabled")

import torch
from gpu_rows import ROOT, ROWS, Report, Row
from results import commit, shown

import data_prep.text.command


def measure(name: str, report: Report, sender: Any) -> None:
    """Send what a row found, or what went wrong in it; runs in a process of its own."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1 if report.tiny else 8)
    try:
        sender.send(ROWS[name](report))
    except BaseException as error:
        traceback.print_exc()
        sender.send({"error": f"{type(error).__name__}: {error}"[-2000:]})


def run_row(name: str, report: Report, limit: float) -> Row:
    """What a row found, with its seconds; an error where its process ended or took longer than `limit`."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    began = time.monotonic()
    process = context.Process(target=measure, args=(name, report, sender))
    process.start()
    sender.close()
    try:
        found: Row = receiver.recv() if receiver.poll(limit) else {"error": f"not done after {limit:.0f} s"}
    except EOFError:
        process.join()
        found = {"error": f"the process ended with {process.exitcode}"}
    process.join(10)
    process.kill()
    return found | {"seconds": round(time.monotonic() - began, 1)}


def prepare(folder: Path, size: int) -> None:
    """A dataset of random bytes."""
    letters = random.Random(0).choices("abcdefgh \n", k=size)
    (folder / "random.txt").write_text("".join(letters))
    given = ["--tokenizer", "byte", "--cut", "tail", "--test-share", "0", "--workers", "1"]
    data_prep.text.command.main([str(folder / "random.txt"), "--output", str(folder / "data"), *given])


def page(rows: dict[str, Row]) -> str:
    """The rows as a page for reading."""
    lines = [
        "# One CUDA device",
        "",
        "Written by `make gpu-report` (tests/benchmarks/gpu_report.py), which documents how each row is measured.",
        "",
        "| row | what | found | date, commit |",
        "|---|---|---|---|",
    ]
    for name in (name for name in ROWS if name in rows):
        row, work = rows[name], ROWS[name]
        what = (getattr(work, "func", work).__doc__ or "").strip().removesuffix(".")
        values = {key: value for key, value in row.items() if key not in ("date", "commit", "seconds") and value != []}
        found = "; ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in values.items())
        lines.append(f"| {name} | {what} | {found} | {row['date']}, {row['commit']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="everything small, on any device: a test of the report")
    parser.add_argument("--seconds", type=float, default=540, help="after which no row begins")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--shakespeare", type=Path, metavar="DATASET")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/benchmarks/gpu.json")
    options = parser.parse_args()
    began = time.monotonic()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = json.loads(options.output.read_text()) if options.output.exists() else {}
    about = {"date": datetime.now(UTC).date().isoformat(), "commit": os.environ.get("UNROLL_COMMIT") or commit()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = Report(options.device, options.tiny, folder, options.shakespeare and options.shakespeare.resolve())
        prepare(folder, 20_000 if options.tiny else 8_000_000)
        for row in options.rows:
            left = options.seconds - (time.monotonic() - began)
            if left <= 0:
                print(f"{row}: no time was left")
                continue
            rows[row] = run_row(row, report, left) | about
            options.output.write_text(json.dumps(rows, indent=1) + "\n")
            options.output.with_suffix(".md").write_text(page(rows))
            print(f"{row}: {json.dumps(rows[row])}", flush=True)


if __name__ == "__main__":
    main()
