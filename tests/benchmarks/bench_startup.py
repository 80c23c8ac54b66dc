"""Seconds from a command to its first step, and of the help of every verb.

    taskset -c 0 python tests/benchmarks/bench_startup.py [--rounds 3] [--verbs fit compare]
        [--output docs/benchmarks/cpu.json]

A round runs each command once; medians are printed. The training is the LSTM of configs/text with a width of 32: a new
run, the same run resumed, and a new run that W&B tracks offline.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median

from results import ROOT, Table, add_output

import data_prep.text.command
from pipeline import cli
from pipeline.runs import journal


def run(*arguments: object, **environment: str) -> tuple[float, float, float]:
    """Run `unroll ARGUMENTS`; return the time of its start, and its seconds of wall clock and of processor."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    began = time.time()
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return began, time.time() - began, used.ru_utime + used.ru_stime


def first_step(folder: Path, name: str, steps: int, wandb: str) -> tuple[float, float]:
    """Train up to a step; return the seconds from the command to the end of the first step, and those of processor."""
    keys = {
        "run": folder / name,
        "data.init_args.dataset": folder / "data",
        "model.init_args.width": 32,
        "trainer.max_steps": steps,
        "trainer.max_epochs": -1,
        "trainer.log_every_n_steps": 1,
        "trainer.limit_val_batches": 1,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
    }
    options = ["--config=configs/text/lstm.yaml", *(f"--{key}={value}" for key, value in keys.items())]
    began, _, processor = run("fit", *options, WANDB_MODE=wandb)
    rows = [row for row in journal.read_journal(folder / name).rows if "train/loss" in row]
    return datetime.fromisoformat(rows[steps - 1]["time"]).timestamp() - began, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verbs", nargs="*", default=list(cli.VERBS))
    add_output(parser)
    options = parser.parse_args()
    about = "From the command to the end of the first step or of the help; processor time of the whole command."
    table = Table("startup", "Start-up", about, options.output)
    trainings = {"fit": ("new", 1, "disabled"), "fit, resumed": ("new", 2, "disabled")}
    trainings["fit, W&B offline"] = ("tracked", 1, "offline")
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = ["builtin", "--output", str(folder / "data"), "--vocab-size", "512", "--workers", "1"]
        data_prep.text.command.main(prepare)
        for turn in range(options.rounds):
            for about, (place, steps, wandb) in trainings.items():
                found.setdefault(about, []).append(first_step(folder, f"{place}-{turn}", steps, wandb))
            for verb in options.verbs:
                _, *seconds = run(verb, "--help")
                found.setdefault(f"{verb} --help", []).append((seconds[0], seconds[1]))
    for command, rounds in found.items():
        seconds, processor = (median(each) for each in zip(*rounds, strict=True))
        table.add(_=command, seconds=seconds, processor_seconds=processor)


if __name__ == "__main__":
    main()
