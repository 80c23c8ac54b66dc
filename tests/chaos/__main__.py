"""Chaos: runs are hurt at random moments and started again; in the end nothing may be lost, doubled or different.

    python -m tests.chaos [--kills 200] [--seed S] [--minutes M] [--setups DDP ...] [--preloaded] [--output FILE.json]

Each setup (one process, DDP, FSDP, a Slurm cluster on this machine) trains an undisturbed run, then runs that are hurt
several times each, by real commands. Injuries and their moments follow from the seed, except for the timing of the
machine. Results are kept per seed in `.chaos`, so an interrupted command continues with `--seed`.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.chaos.cluster import hurt_jobs
from tests.chaos.home import ROOT
from tests.chaos.injuries import may_mount
from tests.chaos.lane import SETUPS, inflict
from tests.chaos.report import write

SHARES = {"one process": 0.3, "DDP": 0.3, "FSDP": 0.25, "Slurm": 0.15}  # of the injuries


def main() -> int:
    """Run the setups side by side, and write the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="injuries of all setups together (default: 200)")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--minutes", type=float, default=25.0, help="after which no run begins (default: 25)")
    parser.add_argument("--setups", nargs="+", choices=SHARES, default=list(SHARES), metavar="NAME")
    parser.add_argument("--preloaded", action="store_true", help="fork attempts instead of starting real commands")
    parser.add_argument("--results", type=Path, default=ROOT / ".chaos", help="folder of the results")
    parser.add_argument(
        "--output", type=Path, default=None, help="write the table to this JSON file and a page beside it"
    )
    parser.add_argument("--lane", nargs=2, help=argparse.SUPPRESS)  # a setup, and its number of injuries
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    until = time.time() + 60 * given.minutes
    seed = random.randrange(10**6) if given.seed is None else given.seed
    folder = given.results / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if given.lane:
        return lane(given.lane[0], seed, int(given.lane[1]), until, folder, given.preloaded)
    print(f"seed {seed}: continue with --seed {seed}", flush=True)
    began = time.time()
    total = sum(SHARES[name] for name in given.setups)
    options = [f"--seed={seed}", f"--minutes={given.minutes}", f"--results={given.results}"]
    options += ["--preloaded"] if given.preloaded else []
    started = []
    for name in given.setups:
        kills = max(1, round(given.kills * SHARES[name] / total))
        spaces = may_mount() if name in SETUPS else []
        command = [*spaces, sys.executable, "-m", "tests.chaos", *options, "--lane", name, str(kills)]
        started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}))
    try:
        codes = [each.wait() for each in started]
    finally:
        for each in started:
            each.terminate()
    results = {name: read(folder / f"{name}.jsonl") for name in given.setups}
    faults = write(results, seed, given.kills, time.time() - began, given.output)
    return int(any(codes) or faults)


def lane(name: str, seed: int, kills: int, until: float, folder: Path, preloaded: bool) -> int:
    """Hurt runs of one setup."""
    results = folder / f"{name}.jsonl"
    if name in SETUPS:
        inflict(name, seed, kills, until, results, preloaded)
    else:
        hurt_jobs(seed, kills, until, results)
    return 0


def read(file: Path) -> list[dict[str, object]]:
    """Return the results of a setup; none if it was skipped."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
