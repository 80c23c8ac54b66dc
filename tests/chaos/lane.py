"""Runs of one setup, one after the other, until enough injuries were inflicted; each result is kept in a file."""

import importlib
import json
import pkgutil
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.chaos.home import ROOT, Home
from tests.chaos.processes import Command
from tests.chaos.trial import Trial

RUN = ROOT / "configs" / "run"
TWO = ["--config", str(RUN / "ddp_cpu.yaml")]
SETUPS = {
    "one process": ([], 1),
    "DDP": (TWO, 2),
    "FSDP": ([*TWO, "--config", str(RUN / "fsdp.yaml")], 2),
}  # options of the command, and the number of training processes
STEPS = 120  # of a run, which takes eight injuries or so


def inflict(setup: str, seed: int, kills: int, until: float, results: Path, preloaded: bool) -> None:
    """Hurt runs of a setup and append their results to a file.

    Args:
        setup: key of SETUPS.
        seed: decides everything that is random.
        kills: number of injuries, those in the file included.
        until: time at which no further run begins.
        results: the file, one line per run; an interrupted command continues it.
        preloaded: fork attempts from this process, which imports everything once.
    """
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    left = kills - sum(len(each["hurts"]) for each in done)
    if left <= 0:
        return
    arguments, processes = SETUPS[setup]
    path = Path(tempfile.mkdtemp(prefix="unroll-chaos-"))
    try:
        steps = STEPS // 2 if preloaded else STEPS
        home = Home(path, arguments, processes, steps, imported() if preloaded else None)
        if not home.disk.mounted:
            print(f"{setup}: no full disk, because this user may not mount a file system", flush=True)
        home.straight()
        print(f"{setup}: undisturbed run done, {home.started:.1f} s to the first step", flush=True)
        number = len(done)
        while left > 0 and time.time() < until:
            number += 1
            result = Trial(home, f"{seed} {setup}", number, left).run()
            left -= len(result.hurts)
            with results.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            print(f"{setup}, run {number}: {summary(asdict(result))}; {left} left", flush=True)
            if result.faultless:
                shutil.rmtree(home.path / "runs" / f"run-{number}", ignore_errors=True)
            else:
                keep(home.path, number, results)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def summary(result: dict[str, object]) -> str:
    """Return what a run went through and what is wrong with it, on one line."""
    hurts, attempts = result["hurts"], result["attempts"]
    assert isinstance(hurts, list)
    wrong = {key: result[key] for key in ("hangs", "failures", "leftovers", "different") if result[key]}
    rows = {key: count for key, count in dict(result["rows"] or {}).items() if count}  # type: ignore[call-overload]
    return f"{len(hurts)} injuries in {attempts} starts, {wrong or 'nothing wrong'}{f', rows {rows}' if rows else ''}"


def keep(home: Path, number: int, results: Path) -> None:
    """Copy what is left of a run that went wrong beside the results."""
    place = results.with_suffix("") / f"run-{number}"
    shutil.copytree(home / "runs" / f"run-{number}", place, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    shutil.copy(log := home / f"run-{number}.log", place)
    print(f"kept in {place}; the end of its log:", *log.read_text().splitlines()[-30:], sep="\n    ", flush=True)
    for file in sorted((place / "stacks").glob("*")):
        if "no process has made progress" in (text := file.read_text()):
            print(file.name, *text.splitlines()[:120], sep="\n    ", flush=True)


def imported() -> Command:
    """Import the modules of every run, and return the function of the command line."""
    import lightning.pytorch.cli  # noqa: F401
    import torch
    import wandb  # noqa: F401

    import pipeline

    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        if module.name != "pipeline.__main__":
            importlib.import_module(module.name)
    from pipeline.callbacks.previews.samples import Samples
    from pipeline.cli import main

    # Generation at each validation would be most of the computation of a short run.
    Samples.__init__.__defaults__ = (2, 8)  # type: ignore[attr-defined]
    sys.argv[0] = "unroll"
    torch.set_num_threads(1)
    return main
