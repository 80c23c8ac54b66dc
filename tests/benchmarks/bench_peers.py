"""Training and generation beside other libraries: equal model, data and batch, on one core, in turns.

    taskset -c 0 python tests/benchmarks/bench_peers.py [CASE ...] [--rounds 3] [--steps 4] [--environments .peers]
        [--torch 'torch==2.13.0'] [--processor-time] [--installed] [--output docs/benchmarks/peers.json]

Each round runs `unroll fit` as a user runs it, without W&B, and the peer's driver (tests/benchmarks/peers), each in a
process of one thread, in turns. Ours takes its seconds per step from the journal, the peer from a clock at the end of
each step, both after the first rows of the log. The medians of the rounds are reported, with the median of the ratios.
Both train the same number of steps with the same optimizer, without dropout, from initial weights of their own; the
mean loss of the last steps must agree within the band of the case.

A peer is installed into an environment of its own, at a pinned version, with `--torch` first: the options of pip that
install the same torch as here. `--processor-time` measures the time of the processor instead of the clock, for a
machine that is not quiet. `--installed` skips peers that are not installed yet.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from peer_data import Work, captured_sounds, language, parallel, series
from results import ROOT, Table, add_output

from pipeline.runs import journal

DRIVERS = Path(__file__).parent / "peers"
PACKAGES = {
    "transformers": ["transformers==5.14.1", "accelerate==1.15.0"],
    "joeynmt": ["joeynmt==2.3.0", "importlib_metadata==8.7.1"],
    "neuralforecast": ["neuralforecast==3.3.0"],
    "plain PyTorch": [],
}
LENGTHS = {"generate 200": 200, "generate 1000": 1000, "generate 2000": 2000}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Case:
    """A training that both sides run.

    Args:
        peer: key of PACKAGES.
        driver: script of the peer.
        prepare: makes the data of both sides.
        band: by which share the losses may differ.
        faster: how much more steps than `--steps` rows are between two rows, for short steps.
    """

    peer: str
    driver: str
    prepare: Callable[[Path, int], Work]
    band: float
    faster: int = 1


CASES = {
    **{
        f"language model, T = {context}": Case(
            "transformers", "transformers_train.py", partial(language, context=context), 0.03
        )
        for context in (128, 1024)
    },
    "translation": Case("joeynmt", "joeynmt_train.py", parallel, 0.05),
    "DLinear": Case("neuralforecast", "neuralforecast_train.py", partial(series, model="DLinear"), 0.1, 20),
    "PatchTST": Case("neuralforecast", "neuralforecast_train.py", partial(series, model="PatchTST"), 0.1, 2),
    "speech": Case("plain PyTorch", "ctc_loop.py", captured_sounds, 0.25),
}


class ProcessorClock(Callback):
    """Writes the processor time at the end of each step to a file, for `--processor-time`.

    Args:
        file: the file.
    """

    def __init__(self, file: str) -> None:
        self.file, self.times = Path(file), [0.0]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.times.append(time.process_time())

    def on_train_end(self, *_: Any) -> None:
        self.file.write_text(json.dumps(self.times))


def python_of(peer: str, options: argparse.Namespace) -> str | None:
    """The interpreter of a peer's environment, made and filled if need be; None if it is not there and may not be."""
    if not PACKAGES[peer]:
        return sys.executable
    home = options.environments.resolve() / peer
    python, stamp = home / "bin" / "python", home / "installed.json"
    wanted = json.dumps([options.torch, PACKAGES[peer]])
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    if options.installed:
        return None
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    pip = [python, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, *options.torch.split()], check=True)
    # Named again, so that no package replaces it.
    subprocess.run([*pip, *options.torch.split(), *PACKAGES[peer]], check=True)
    stamp.write_text(wanted)
    return str(python)


def drive(python: str, driver: str, work: Work, folder: Path) -> Any:
    """What a driver reports."""
    work = work | {"folder": str(folder), "output": str(folder / "found.json")}
    (folder / "work.json").write_text(json.dumps(work))
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT) if python == sys.executable else ""}
    run([python, str(DRIVERS / driver), str(folder / "work.json")], environment, folder)
    return json.loads((folder / "found.json").read_text())


def run(command: list[str], environment: dict[str, str], folder: Path) -> None:
    """Run a command, and print its output if it fails."""
    done = subprocess.run(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{' '.join(command[:3])}: exit code {done.returncode}")


def fit(arguments: list[str], work: Work, folder: Path, processor_time: bool) -> Any:
    """What `unroll fit` needs and reaches, by its journal."""
    place = folder / "run"
    keys = {
        "run": place,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.max_steps": work["steps"],
        "trainer.max_epochs": -1,
        "trainer.limit_val_batches": 0,
        "trainer.log_every_n_steps": work["every"],
        "checkpoints.every_minutes": "null",
        "model.init_args.schedule": "null",
    }
    given = [*arguments, *(f"--{key}={value}" for key, value in keys.items())]
    if processor_time:
        clock = {
            "class_path": "bench_peers.ProcessorClock",
            "init_args": {"file": str(folder / "times")},
        }
        given.append(f"--trainer.callbacks={json.dumps([clock])}")
    path = os.pathsep.join([str(ROOT), str(DRIVERS.parent)])
    run([sys.executable, "-m", "pipeline", "fit", *given], {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}, folder)
    rows = {row["step"]: row for row in journal.read_journal(place).rows if "train/loss" in row}
    steps = work["steps"] - work["warm"]
    times = json.loads((folder / "times").read_text()) if processor_time else []
    return {
        "wall": (rows[work["steps"]]["seconds"] - rows[work["warm"]]["seconds"]) / steps,
        "processor": (times[work["steps"]] - times[work["warm"]]) / steps if processor_time else None,
        "loss": rows[work["steps"]]["train/loss"],
        "parameters": json.loads((place / "run.json").read_text())["parameters"],
    }


def train(name: str, options: argparse.Namespace, folder: Path, table: Table) -> None:
    """Add the row of a training."""
    case = CASES[name]
    python = python_of(case.peer, options)
    if python is None:
        return table.add(case=name, peer=f"{case.peer} is not installed")
    every = options.steps * case.faster
    work = case.prepare(folder, 5 * every)
    work |= {"steps": 5 * every, "every": every, "warm": every}
    arguments = work.pop("arguments")
    ours, theirs = [], []
    for turn in range(options.rounds):
        place = folder / str(turn)
        place.mkdir()
        ours.append(fit(arguments, work, place, options.processor_time))
        theirs.append(drive(python, case.driver, work, place))
    clock = "processor" if options.processor_time else "wall"
    mine, other = (median(each[clock] for each in found) for found in (ours, theirs))
    losses = ours[-1]["loss"], theirs[-1]["loss"]
    table.add(
        case=name,
        peer=" ".join(PACKAGES[case.peer][:1]).replace("==", " ") or case.peer,
        parameters=ours[0]["parameters"],
        their_parameters=theirs[0]["parameters"],
        ms_per_step=1e3 * mine,
        their_ms_per_step=1e3 * other,
        **({"tokens_per_second": work["tokens"] / mine, "their_tokens_per_second": work["tokens"] / other}),
        speed_beside_theirs=median(there[clock] / here[clock] for here, there in zip(ours, theirs, strict=True)),
        steps=work["steps"],
        loss=losses[0],
        their_loss=losses[1],
        agrees=f"{'yes' if abs(losses[0] - losses[1]) <= case.band * max(losses) else 'no'}, within {case.band:.0%}",
    )
    return None


def generate(lengths: dict[str, int], options: argparse.Namespace, folder: Path, table: Table) -> None:
    """Add the rows of generation."""
    python = python_of("transformers", options)
    if python is None:
        return table.add(case="generation", peer="transformers is not installed")
    size = {"vocab_size": 2048, "width": 192, "depth": 4, "heads": 6}
    work = {"size": size, "lengths": [min(length, options.longest) for length in lengths.values()]}
    found = []
    for _ in range(options.rounds):
        ours = drive(sys.executable, "unroll_generate.py", work, folder)
        found.append((ours, drive(python, "transformers_generate.py", work, folder)))
    clock = int(options.processor_time)
    for length in dict.fromkeys(str(each) for each in work["lengths"]):
        pairs = [(ours[length][clock], theirs[length][clock]) for ours, theirs in found]
        table.add(
            case=f"up to {length} tokens",
            peer=PACKAGES["transformers"][0].replace("==", " "),
            ms_per_token=median(ours for ours, _ in pairs),
            their_ms_per_token=median(theirs for _, theirs in pairs),
            speed_beside_theirs=median(theirs / ours for ours, theirs in pairs),
        )
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join([*CASES, *LENGTHS])} (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="between two rows of the log; five such rows are trained")
    parser.add_argument("--longest", type=int, default=2000, help="tokens that are generated at most")
    parser.add_argument("--environments", type=Path, default=ROOT / ".peers", metavar="DIR")
    parser.add_argument("--torch", default=f"torch=={torch.__version__.partition('+')[0]}", metavar="OPTIONS")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--installed", action="store_true", help="skip peers that are not installed")
    add_output(parser, "peers")
    options = parser.parse_args()
    chosen = options.cases or [*CASES, *LENGTHS]
    if unknown := set(chosen) - {*CASES, *LENGTHS}:
        parser.error(f"CASE={sorted(unknown)[0]}: expected one of {', '.join([*CASES, *LENGTHS])}")
    torch.set_num_threads(1)
    unit = "processor time" if options.processor_time else "wall-clock time"
    about = f"One core, medians of {options.rounds} alternating rounds, {unit}. Above 1, ours is faster."
    trained = Table("training", "Training beside other libraries", about, options.output)
    for name in (name for name in chosen if name in CASES):
        with tempfile.TemporaryDirectory() as place:
            train(name, options, Path(place), trained)
    if lengths := {name: length for name, length in LENGTHS.items() if name in chosen}:
        about += " A text of one row by `transformers`' GPT-2 and a Transformer of the same size, greedily."
        with tempfile.TemporaryDirectory() as place:
            generate(
                lengths,
                options,
                Path(place),
                Table("generation", "Generation beside other libraries", about, options.output),
            )


if __name__ == "__main__":
    main()
