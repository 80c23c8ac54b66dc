"""`unroll demo`: texts, drawings and sounds, four models, an interrupted training and a table, by a user's commands.

Each command is shown before it runs in a process of its own; the first that fails ends the demo with its exit
code. The corpus is Python's own language reference, which every Python has, so nothing is downloaded.
"""

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.arguments import Parser
from pipeline.commands import subcommands
from pipeline.commands.compare import command as compare
from pipeline.dataset.manifest import Dataset
from pipeline.errors import TRY_AGAIN
from pipeline.runs import journal
from pipeline.runs.run import Run, directory_of
from pipeline.training.shipped_configs import shipped

TEXT = Path("data/pydoc-characters")
PREPARE = f"prepare text builtin --output {TEXT} --tokenizer character --validation-share 0.1"
LSTM, TRANSFORMER, CAPTIONER, TRANSCRIBER = "demo-lstm", "demo-transformer", "demo-captions", "demo-audio"
DRAWINGS, DRAWN = Path("data/drawings"), Path("data/drawings.jpg")
DRAW = f"prepare captions builtin:4000 --output {DRAWINGS} --tokenizer word --size 64"
KEYS, DIALLED = Path("data/keys"), Path("data/dialled.flac")
DIAL = f"prepare audio builtin:1000 --output {KEYS} --rate 8000 --tokenizer word"
SAMPLE = ["--prompt", "The for statement is used to", "--tokens", "400", "--temperature", "0.5", "--seed", "1"]


class Failed(Exception):
    """A command of the demo ended with an exit code that was not expected."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def main(argv: list[str]) -> int:
    """Run the demo in the working directory; the exit code is that of the first command that fails."""
    options = parse_arguments(argv)
    began = time.monotonic()
    subcommands.import_once()
    with tempfile.TemporaryDirectory(prefix="unroll-demo-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder  # a forked process leaves what Python removes at its exit
        try:
            run_demo(options.steps, options.stop_after)
        except Failed as failure:
            print(f"\nThe demo ends here: the last command returned exit code {failure.exit_code}.", flush=True)
            return failure.exit_code
        finally:
            tempfile.tempdir = None
    print_heading(f"Shown in {time.monotonic() - began:.0f} seconds:")
    print("\n".join(closing()))
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="unroll demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, metavar="N", help="optimizer steps of each model (default: as in configs/demo)")
    add("--stop-after", type=int, default=150, metavar="STEP", help="step at which the LSTM is stopped (default: 150)")
    return parser.parse_args(argv)


def run_demo(steps: int | None, stop_after: int) -> None:
    """Run the demo command by command.

    Raises:
        Failed: a command failed, or the stopped run did not continue at its last step.
    """
    limit = [] if steps is None else [f"--trainer.max_steps={steps}"]
    print_heading("1. Text becomes a dataset of characters.")
    prepare(TEXT, PREPARE)
    print_heading("2. Two processes train an LSTM; SIGTERM stops them in the middle.")
    stopped = train_and_stop([*fit_command(LSTM), *limit, "--resume", "never"], directory_of(LSTM), stop_after)
    if stopped:
        print_heading("3. The same command continues the run at its last step.")
        before = last_step(directory_of(LSTM))
        run_command([*fit_command(LSTM), *limit])
        confirm_continued(directory_of(LSTM), before)
    print_heading("4. A Transformer is trained on the same text.")
    run_command([*fit_command(TRANSFORMER), *limit, "--resume", "never"])
    print_heading("5. Both write.")
    for name in (LSTM, TRANSFORMER):
        run_command(["generate", name, *SAMPLE])
    print_heading("6. Side by side, with a counted 5-gram as the baseline.")
    run_command(["compare", LSTM, TRANSFORMER])
    print_heading("7. A captioner learns to describe drawings.")
    train_captioner(limit)
    print_heading("8. A transcriber learns which telephone keys a recording contains.")
    transcribe(limit)


def train_captioner(limit: list[str]) -> None:
    """Train a captioner on generated drawings, and draw where it attends for each word.

    Raises:
        Failed: a command failed.
    """
    held_out = learn(DRAWINGS, DRAW, CAPTIONER, limit)
    DRAWN.write_bytes(held_out.value("image", 0))
    picture = directory_of(CAPTIONER) / "attention.png"
    run_command(["generate", CAPTIONER, "--image", str(DRAWN), "--attention", str(picture)])
    print(f"A reference caption: {held_out.references(0)[0]}. The attention of each word: {picture}", flush=True)


def transcribe(limit: list[str]) -> None:
    """Train a transcriber on generated key tones.

    Raises:
        Failed: a command failed.
    """
    held_out = learn(KEYS, DIAL, TRANSCRIBER, limit)
    DIALLED.write_bytes(held_out.value("audio", 0))
    run_command(["generate", TRANSCRIBER, "--audio", str(DIALLED)])
    print(f"The keys that were pressed: {held_out.references(0)[0]}. The recording: {DIALLED}", flush=True)


def prepare(dataset: Path, command: str) -> None:
    """Prepare a dataset unless it exists.

    Raises:
        Failed: the command failed.
    """
    if dataset.exists():
        print(f"{dataset} exists already.", flush=True)
    else:
        run_command(shlex.split(command))


def learn(dataset: Path, command: str, name: str, limit: list[str]) -> Any:
    """Prepare a dataset, train and test a model; return the split on which it was tested.

    Raises:
        Failed: a command failed.
    """
    prepare(dataset, command)
    run_command([*fit_command(name), *limit, "--resume", "never"])
    run_command(["test", "--run", name])
    return Dataset.open(dataset).splits["test"]


def config(name: str) -> str:
    """The config of a run of the demo, below the working directory if it is there."""
    path = shipped(f"{name.replace('-', '/')}.yaml")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def fit_command(name: str) -> list[str]:
    """The command that trains a run of the demo."""
    return ["fit", "--config", config(name), "--run", name]


def closing() -> list[str]:
    """What the runs measured, and the commands for a text of the user's own."""
    lstm, transformer, counted = best_bits_per_byte()
    attempts = Run(directory_of(LSTM)).record["attempts"]
    stopped = f"stopped, and continued at step {attempts[-1]['start_step']}" if attempts[1:] else "not stopped"
    described, drawings = correct(CAPTIONER)
    transcribed, recordings = correct(TRANSCRIBER)
    return [
        f"- The LSTM was {stopped}.",
        f"- Bits per byte of held-out text: LSTM {lstm:.3f}, Transformer {transformer:.3f}, 5-gram {counted:.3f}.",
        f"  The LSTM {standing(lstm, counted)}; the Transformer {standing(transformer, counted)}.",
        f"- The captioner describes {described} of {drawings} held-out drawings correctly.",
        f"- The transcriber reads {transcribed} of {recordings} held-out recordings without an error.",
        "",
        "The same with a text of your own:",
        "  unroll prepare text my.txt --tokenizer character --cut tail --output data/my",
        f"  unroll fit --config {config(LSTM)} --data.init_args.dataset data/my --run my-lstm",
        "  unroll generate my-lstm --temperature 0.5",
        "  unroll compare my-lstm",
    ]


def best_bits_per_byte() -> tuple[float, float, float]:
    """The best validation of the LSTM and of the Transformer, and that of the counted 5-gram."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        compare.main([LSTM, TRANSFORMER, "--json"])
    [table] = json.loads(printed.getvalue())["datasets"]
    found = {row["name"]: row["bits_per_byte"] for row in table["runs"]}
    return found[LSTM], found[TRANSFORMER], table["baseline"]["bits_per_byte"]


def standing(bits: float, counted: float) -> str:
    """How a network stands beside the counted n-gram."""
    return "is ahead of the 5-gram" if bits < counted else "is not ahead of the 5-gram"


def correct(name: str) -> tuple[int, int]:
    """How many texts that a run wrote for its test split equal one of their references, and how many it wrote."""
    file = directory_of(name) / "written-test.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return sum(row["text"] in row["references"] for row in rows), len(rows)


def print_heading(text: str) -> None:
    """A heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def start_command(arguments: Sequence[str]) -> BaseProcess:
    """Show a command and start it."""
    print(f"$ unroll {shlex.join(arguments)}", flush=True)
    return subcommands.start_subcommand(arguments)


def run_command(arguments: Sequence[str]) -> None:
    """Show a command and run it to its end.

    Raises:
        Failed: its exit code is not 0.
    """
    if code := subcommands.wait(start_command(arguments)):
        raise Failed(code)


def train_and_stop(arguments: Sequence[str], directory: Path, stop_after: int) -> bool:
    """Start a training and send it SIGTERM once its journal shows `stop_after` steps; was it stopped in time?

    Raises:
        Failed: it failed, or did not leave with the exit code that asks to be started again.
    """
    older = created(directory)
    process = start_command(arguments)
    while process.is_alive():
        if created(directory) != older and last_step(directory) >= stop_after:
            process.terminate()
            break
        time.sleep(0.1)
    code = subcommands.wait(process)
    if code == 0:
        print(f"It finished before step {stop_after} was seen: there is nothing to continue.")
        return False
    if code != TRY_AGAIN:
        raise Failed(code)
    print(f"SIGTERM after step {stop_after}: exit code {code}, stopped and saved.", flush=True)
    return True


def confirm_continued(directory: Path, before: int) -> None:
    """Say at which step the last attempt began; nothing that the journal had shown may be lost.

    Raises:
        Failed: it began before the last step of the attempt that was stopped.
    """
    step = Run(directory).attempt["start_step"]
    print(f"The journal stood at step {before}; the second attempt continued at step {step}.", flush=True)
    if step < before or step == 0:
        raise Failed(1)


def created(directory: Path) -> str | None:
    """The identity of the run in `directory`, which distinguishes a new run from an old one of the same name."""
    record = Run(directory).record
    return f"{record['created']} {record['wandb_id']}" if record else None


def last_step(directory: Path) -> int:
    """The last optimizer step in the journal; 0 if there is no journal yet."""
    try:
        return max((int(row["step"]) for row in journal.read_journal(directory).rows), default=0)
    except FileNotFoundError:
        return 0
