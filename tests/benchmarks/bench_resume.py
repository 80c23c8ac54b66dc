"""The cost of resumable runs: checkpoints, collectives for stops, and the start of an attempt.

    python tests/benchmarks/bench_resume.py [--config configs/text/lstm.yaml] [--width 704] [--steps 8] [--rounds 3]
        [--device cpu]

Everything is measured in runs of `unroll fit`, alternately: the stall of a checkpoint (from the journal) with and
without background saving; the seconds from the command to the end of the first step, for a new and a resumed run; and,
on two processes, the collective before each step as a share of the step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from results import Table, add_output

import data_prep.text.command
from pipeline.callbacks.checkpointing import Checkpoints
from pipeline.callbacks.nonfinite_guard import Guard
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.runs import journal

ROOT = Path(__file__).parents[2]
WARM = 3  # steps before the clock starts


class Clock(Callback):
    """Times the steps, the check of each, and the agreement in it; leaves the medians in clock.json.

    Args:
        repeats: agreements of either kind that are compared when training is over.
    """

    def __init__(self, repeats: int = 300) -> None:
        self.repeats = repeats
        self.times: dict[str, list[float]] = {"step": [], "check": [], "agreement": []}
        self.began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        [guard] = [each for each in callbacks if isinstance(each, Guard)]
        guard.on_before_optimizer_step = self._timed("check", guard.on_before_optimizer_step)  # type: ignore[method-assign]
        agreement = guard.vote.agreement
        agreement.total = self._timed("agreement", agreement.total)  # type: ignore[method-assign]

    def on_train_batch_start(self, *_: Any) -> None:
        if self.began:
            self.times["step"].append(time.perf_counter() - self.began)
        self.began = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time the collective with and without the flags to save and to stop, alternately."""
        [saves] = [each for each in trainer.callbacks if isinstance(each, Checkpoints)]  # type: ignore[attr-defined]
        del saves.agreement.total  # type: ignore[method-assign]
        seconds: dict[int, list[float]] = {2: [], 5: []}
        for _ in range(self.repeats):
            for numbers, found in seconds.items():
                began = time.perf_counter()
                requests = [ask(trainer) for ask in saves.vote.questions.values()] if numbers == 5 else []
                saves.agreement.total(torch.tensor([0.0, 0.0, *requests]))
                found.append(time.perf_counter() - began)
        extra = median(five - two for two, five in zip(seconds[2], seconds[5], strict=True))
        if trainer.is_global_zero:
            medians = {name: median(each[WARM:]) for name, each in self.times.items()} | {"stop": extra}
            (Path(trainer.default_root_dir) / "clock.json").write_text(json.dumps(medians))

    def _timed(self, name: str, work: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            found = work(*arguments)
            self.times[name].append(time.perf_counter() - began)
            return found

        return timed


def fit(run: Path, options: argparse.Namespace, dataset: Path, *keys: str) -> None:
    """One attempt."""
    settings = {
        "run": run,
        "model.init_args.width": options.width,
        "data.init_args.dataset": dataset,
        "trainer.accelerator": "gpu" if options.device == "cuda" else "cpu",
        "trainer.max_epochs": -1,
        "trainer.val_check_interval": 10**6,
        "trainer.check_val_every_n_epoch": "null",
        "trainer.limit_val_batches": 1,
        "trainer.log_every_n_steps": 1,
        "checkpoints.every_minutes": "null",
    }
    given = [f"--config={ROOT / options.config}", *(f"--{key}={value}" for key, value in settings.items()), *keys]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
        "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
    }
    command = [sys.executable, "-m", "pipeline", "fit", *given]
    subprocess.run(command, check=True, env=environment, capture_output=True, cwd=ROOT)


def stall(run: Path, options: argparse.Namespace, dataset: Path, background: str) -> float:
    """Return the seconds by which a checkpoint stalls training."""
    every = max(2, options.steps // 4)
    saves = [f"--checkpoints.every_steps={every}", f"--checkpoints.background={background}"]
    fit(run, options, dataset, *saves, "--trainer.devices=1", f"--trainer.max_steps={options.steps + 1}")
    return sum(journal.read_journal(run).series("train/checkpoint_stall").values) / (options.steps // every)


def start(run: Path, options: argparse.Namespace, dataset: Path, steps: int) -> float:
    """Seconds from the command to the end of the first step of an attempt."""
    began = time.time()
    fit(run, options, dataset, "--trainer.devices=1", f"--trainer.max_steps={steps}")
    rows = [row for row in journal.read_journal(run).rows if "train/loss" in row]
    return datetime.fromisoformat(rows[steps - 2]["time"]).timestamp() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", default="configs/text/lstm.yaml")
    parser.add_argument("--width", type=int, default=704)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    add_output(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_prep.text.command.main(
            ["builtin", "--output", str(folder / "data"), "--vocab-size", "2048", "--workers", "1"]
        )
        measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Print the table."""
    dataset = folder / "data"
    stalls: dict[str, list[float]] = {"true": [], "false": []}
    starts: dict[str, list[float]] = {"new": [], "continued": []}
    for turn in range(options.rounds):
        for background, seconds in stalls.items():
            seconds.append(stall(folder / f"stall-{background}-{turn}", options, dataset, background))
        for number, seconds in enumerate(starts.values()):
            seconds.append(start(folder / f"start-{turn}", options, dataset, 2 * (number + 1)))
    last = checkpoint.newest_first(folder / "start-0" / "checkpoints")[0]
    size = sum(file["bytes"] for file in checkpoint.verify_checkpoint(last)["files"].values())
    parameters = json.loads((folder / "start-0" / "run.json").read_text())["parameters"]
    about = f"{options.config}, {parameters / 1e6:.1f} M parameters, medians of {options.rounds} alternating rounds."
    table = Table("resume", "The cost of resumable training", about, options.output)
    ratio = median(here / there for here, there in zip(stalls["true"], stalls["false"], strict=True))
    table.add(what="megabytes of a checkpoint", found=size / 1e6)
    table.add(what="seconds that training waits for a checkpoint, blocking", found=median(stalls["false"]))
    table.add(what="the same, written in the background", found=median(stalls["true"]), share=ratio)
    table.add(what="seconds from the command to the end of the first step", found=median(starts["new"]))
    table.add(what="the same of a resumed run", found=median(starts["continued"]))
    for turn in range(options.rounds if options.device == "cpu" else 0):
        clock = json.dumps([{"class_path": "bench_resume.Clock"}])
        keys = ["--trainer.devices=2", f"--trainer.callbacks={clock}", f"--trainer.max_steps={options.steps}"]
        fit(folder / f"agree-{turn}", options, dataset, *keys)
    shares(sorted(folder.glob("agree-*/clock.json")), table)


def shares(clocks: list[Path], table: Table) -> None:
    """Add what a step's check and agreement cost, of the median round."""
    found = [json.loads(clock.read_text()) for clock in clocks]
    for name, words in (
        ("check", "the finiteness check, with the gradient's norm that clipping needs too"),
        ("agreement", "the agreement in it"),
        ("stop", "what saving and stopping add to it"),
    ):
        if found:
            seconds, share = median(each[name] for each in found), median(each[name] / each["step"] for each in found)
            table.add(
                what=f"milliseconds of {words}, and its share of a step on two processes",
                found=1e3 * seconds,
                share=share,
            )


if __name__ == "__main__":
    main()
