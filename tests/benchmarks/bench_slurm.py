"""The overhead of a Slurm cluster: time from submission to the first step, and time lost per preemption.

    python tests/benchmarks/bench_slurm.py [--preemptions 10] [--seconds 20] [--nodes 2] [--tasks 1]

It starts a real Slurm on this machine (as the tests do) and trains the small LSTM of configs/text on the built-in
corpus. A job of higher priority preempts it repeatedly, each time after the given seconds of training.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from results import Table, add_output

import data_prep.text.command
from pipeline.runs import journal

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # tests are not installed

from tests.slurm.cluster import PATH, TOOLS, Cluster  # noqa: E402

KEYS = {
    "model.init_args.width": 64,
    "trainer.max_epochs": -1,
    "trainer.max_steps": 1_000_000,
    "trainer.devices": "auto",
}
QUIET = {"trainer.log_every_n_steps": 1, "trainer.val_check_interval": 1_000_000, "checkpoints.every_minutes": 60}
EPOCH = {"trainer.check_val_every_n_epoch": "null"}


class Life(NamedTuple):
    """The times in seconds at which a start of the job ran, took its first step, was preempted, and had saved."""

    running: float
    stepped: float
    asked: float
    saved: float


class Bench:
    """One run on a cluster, polled ten times per second."""

    def __init__(self, cluster: Cluster, folder: Path, options: argparse.Namespace) -> None:
        self.cluster, self.run = cluster, folder / "runs" / "bench"
        keys = {**KEYS, **QUIET, **EPOCH, "data.init_args.dataset": folder / "data"}
        given = [f"--{key}={value}" for key, value in keys.items()]
        self.submitted = time.monotonic()
        self.job = cluster.sbatch(
            *(f"--chdir={folder}", f"--output={folder}/bench.out", "--partition=low", f"--nodes={options.nodes}"),
            *(f"--ntasks-per-node={options.tasks}", ROOT / "slurm" / "train.sbatch"),
            *(ROOT / "configs" / "text" / "lstm.yaml", "--run", "bench", "--trainer.accelerator=cpu", *given),
            UNROLL=f"{sys.executable} -m pipeline",
            PYTHONPATH=str(ROOT),
            OMP_NUM_THREADS="1",
        )

    def life(self, number: int, seconds: float) -> Life:
        """Observe one start of the job, which is preempted after `seconds` of training."""
        running = self._when(lambda: self.cluster.state(self.job) == "RUNNING")
        stepped = self._when(lambda: self._rows(number))
        time.sleep(seconds)
        asked = time.monotonic()
        self.cluster.sbatch("--partition=high", "--output=/dev/null", "--nodes=4", "--exclusive", "--wrap=true")
        saved = self._when(lambda: self._attempt(number)["exit_code"] is not None)
        self._when(lambda: self.cluster.state(self.job) == "PENDING")
        return Life(running, stepped, asked, saved)

    def trained(self) -> float:
        """Seconds of training that count."""
        return float(journal.read_journal(self.run).series("train/loss").seconds[-1])

    def _rows(self, number: int) -> bool:
        file = self.run / journal.FILE
        return file.exists() and any(row["attempt"] == number for row in journal.read_journal(self.run).rows)

    def _attempt(self, number: int) -> dict[str, Any]:
        attempts: list[dict[str, Any]] = json.loads((self.run / "run.json").read_text())["attempts"]
        return attempts[number - 1]

    def _when(self, happened: Callable[[], object]) -> float:
        while not happened():
            time.sleep(0.1)
        return time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preemptions", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=1)
    add_output(parser)
    options = parser.parse_args()
    if missing := [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]:
        print(f"not measured: {missing[0]} is not installed")
        return
    folder = Path(tempfile.mkdtemp(prefix="unroll-slurm-"))
    folder.chmod(0o755)  # munge requires a directory that all users may enter
    cluster = Cluster(folder, "bench")
    try:
        data_prep.text.command.main(
            ["builtin", "--output", str(folder / "data"), "--vocab-size", "2048", "--workers", "1"]
        )
        cluster.start()
        bench = Bench(cluster, folder, options)
        lives = [bench.life(number, options.seconds) for number in range(1, options.preemptions + 1)]
        tell(bench, lives, options)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def tell(bench: Bench, lives: list[Life], options: argparse.Namespace) -> None:
    """Add what was measured."""
    queued = [after.running - before.saved for before, after in itertools.pairwise(lives)]
    held = sum(life.saved - life.running for life in lives)
    rows = {
        "submission to first step": lives[0].stepped - bench.submitted,
        "preemption: signal to saved": median(life.saved - life.asked for life in lives),
        "preemption: saved to nodes again": median(queued) if queued else float("nan"),
        "preemption: nodes again to first new step": median(life.stepped - life.running for life in lives[1:] or lives),
    }
    about = f"{options.nodes} nodes of the test cluster with {options.tasks} processes each, {len(lives)} preemptions."
    table = Table("slurm", "Slurm", about, options.output)
    for name, seconds in rows.items():
        table.add(what=name, seconds=seconds)
    table.add(what="share of productive time, of that with nodes", share=bench.trained() / held)


if __name__ == "__main__":
    main()
