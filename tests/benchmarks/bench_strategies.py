"""Tokens per second of each strategy on two processes against one process, by `unroll fit` itself.

    python tests/benchmarks/bench_strategies.py [--config configs/text/lstm.yaml] [--steps 20] [--rounds 3]
        [--device cpu] [--output docs/benchmarks/cpu.json]

All of them train the same global batches; a round runs each once, and the medians of the ratios within a round are
printed. On a CPU both processes share its memory and its cores: two of them are at best as fast as there are cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from results import Table, add_output

import data_prep.text.command
from pipeline.runs import journal

ROOT = Path(__file__).parents[2]
SHARDED = ("fsdp", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3")
WAYS = {
    "one process": [],
    "ddp": ["ddp"],
    **{name: [name] for name in SHARDED},
    "ddp, activation checkpointing": ["ddp", "activation_checkpointing"],
}


def rate(run: Path, overlays: list[str], options: argparse.Namespace, dataset: Path) -> float:
    """Return tokens per second after the first tenth of the steps."""
    configs = [ROOT / options.config, *(ROOT / "configs" / "run" / f"{name}.yaml" for name in overlays)]
    keys = {
        "run": run,
        "data.init_args.dataset": dataset,
        "trainer.accelerator": "gpu" if options.device == "cuda" else "cpu",
        "trainer.devices": 2 if overlays else 1,
        "trainer.max_steps": options.steps,
        "trainer.max_epochs": -1,
        "trainer.val_check_interval": options.steps,
        "trainer.check_val_every_n_epoch": "null",
        "trainer.log_every_n_steps": options.steps // 10,
        "trainer.limit_val_batches": 1,
        "checkpoints.every_minutes": "null",
    }
    given = [*(f"--config={path}" for path in configs), *(f"--{key}={value}" for key, value in keys.items())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pipeline", "fit", *given], check=True, env=environment, capture_output=True)
    rows = [row for row in journal.read_journal(run).rows if "train/loss" in row]
    first, last = rows[0], rows[-1]
    return float(last["tokens"] - first["tokens"]) / float(last["seconds"] - first["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", default="configs/text/lstm.yaml")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    add_output(parser)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_prep.text.command.main(
            ["builtin", "--output", str(folder / "data"), "--vocab-size", "2048", "--workers", "1"]
        )
        for turn in range(options.rounds):
            for way, overlays in WAYS.items():
                run = folder / f"{way.replace(', ', '-').replace(' ', '-')}-{turn}"
                rates[way].append(rate(run, overlays, options, folder / "data"))
    about = f"Two processes beside one, {options.config}, medians of {options.rounds} alternating rounds."
    table = Table("strategies", "Strategies", about, options.output)
    for way, measured in rates.items():
        one, ddp = (
            median(here / there for here, there in zip(measured, rates[name], strict=True))
            for name in ("one process", "ddp")
        )
        table.add(strategy=way, tokens_per_second=median(measured), of_one_process=one, of_ddp=ddp)


if __name__ == "__main__":
    main()
