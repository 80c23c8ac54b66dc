"""`unroll demo`: train, interrupt, resume and compare models of text, images and audio.

Each command is printed before it runs in its own process; the first one that fails ends the demo with its exit code.
The corpus is the language reference that is part of every Python installation: nothing is downloaded.
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

from pipeline.arguments import Parser
from pipeline.commands import subcommands
from pipeline.commands.compare import command as compare
from pipeline.dataset.manifest import Dataset
from pipeline.dataset.records import RecordSplit
from pipeline.errors import TRY_AGAIN
from pipeline.runs import journal
from pipeline.runs.run import Run, directory_of
from pipeline.training.shipped_configs import shipped

TEXT = Path("data/pydoc-characters")
PREPARE = f"prepare text builtin --output {TEXT} --tokenizer character --validation-share 0.1"
LSTM, TRANSFORMER, CAPTIONER, RECOGNISER = "demo-lstm", "demo-transformer", "demo-captions", "demo-audio"
DRAWINGS, DRAWN = Path("data/drawings"), Path("data/drawings.jpg")
DRAW = f"prepare captions builtin:4000 --output {DRAWINGS} --tokenizer word --size 64"
KEYS, DIALLED = Path("data/keys"), Path("data/dialled.flac")
DIAL = f"prepare audio builtin:1000 --output {KEYS} --rate 8000 --tokenizer word"
SAMPLE = ["--prompt", "The for statement is used to", "--tokens", "400", "--temperature", "0.5", "--seed", "1"]


class Failed(Exception):
    """A command of the demo ended with an unexpected exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def main(argv: list[str]) -> int:
    """Run the demo in the working directory; return the exit code of the first command that fails."""
    options = parse_arguments(argv)
    began = time.monotonic()
    subcommands.import_once()
    with tempfile.TemporaryDirectory(prefix="unroll-demo-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder  # forked processes do not remove their own
        try:
            run_demo(options.steps, options.stop_after)
        except Failed as failure:
            print(f"\nDemo stopped: the last command returned exit code {failure.exit_code}.", flush=True)
            return failure.exit_code
        finally:
            tempfile.tempdir = None
    print_heading(f"Demo finished in {time.monotonic() - began:.0f} seconds:")
    print("\n".join(closing()))
    return 0


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = Parser(prog="unroll demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, metavar="N", help="optimizer steps per model (default: as in configs/demo)")
    add("--stop-after", type=int, default=150, metavar="STEP", help="interrupt the LSTM at this step (default: 150)")
    return parser.parse_args(argv)


def run_demo(steps: int | None, stop_after: int) -> None:
    """Run the demo command by command.

    Raises:
        Failed: a command failed, or the interrupted run did not resume at its last step.
    """
    limit = [] if steps is None else [f"--trainer.max_steps={steps}"]
    print_heading("1. Prepare a text dataset with a character tokenizer.")
    prepare(TEXT, PREPARE)
    print_heading("2. Train an LSTM on two processes and interrupt it with SIGTERM.")
    stopped = train_and_stop([*fit_command(LSTM), *limit, "--resume", "never"], directory_of(LSTM), stop_after)
    if stopped:
        print_heading("3. Resume the run with the same command.")
        before = last_step(directory_of(LSTM))
        run_command([*fit_command(LSTM), *limit])
        confirm_continued(directory_of(LSTM), before)
    print_heading("4. Train a Transformer on the same text.")
    run_command([*fit_command(TRANSFORMER), *limit, "--resume", "never"])
    print_heading("5. Generate text with both.")
    for name in (LSTM, TRANSFORMER):
        run_command(["generate", name, *SAMPLE])
    print_heading("6. Compare both with a Kneser-Ney 5-gram baseline.")
    run_command(["compare", LSTM, TRANSFORMER])
    print_heading("7. Train an image captioner on generated drawings.")
    train_captioner(limit)
    print_heading("8. Train a speech recogniser on recordings of telephone keys.")
    train_recogniser(limit)


def train_captioner(limit: list[str]) -> None:
    """Train an image captioner on generated drawings and plot its attention per word.

    Raises:
        Failed: a command failed.
    """
    held_out = learn(DRAWINGS, DRAW, CAPTIONER, limit)
    DRAWN.write_bytes(held_out.value("image", 0))
    picture = directory_of(CAPTIONER) / "attention.png"
    run_command(["generate", CAPTIONER, "--image", str(DRAWN), "--attention", str(picture)])
    print(f"Reference caption: {held_out.references(0)[0]}. Attention per word: {picture}", flush=True)


def train_recogniser(limit: list[str]) -> None:
    """Train a speech recogniser on generated key tones.

    Raises:
        Failed: a command failed.
    """
    held_out = learn(KEYS, DIAL, RECOGNISER, limit)
    DIALLED.write_bytes(held_out.value("audio", 0))
    run_command(["generate", RECOGNISER, "--audio", str(DIALLED)])
    print(f"Reference transcript: {held_out.references(0)[0]}. Recording: {DIALLED}", flush=True)


def prepare(dataset: Path, command: str) -> None:
    """Prepare a dataset unless it exists.

    Raises:
        Failed: the command failed.
    """
    if dataset.exists():
        print(f"{dataset} already exists.", flush=True)
    else:
        run_command(shlex.split(command))


def learn(dataset: Path, command: str, name: str, limit: list[str]) -> RecordSplit:
    """Prepare a dataset, train and test a model; return the test split.

    Raises:
        Failed: a command failed.
    """
    prepare(dataset, command)
    run_command([*fit_command(name), *limit, "--resume", "never"])
    run_command(["test", "--run", name])
    split: RecordSplit = Dataset.open(dataset).splits["test"]
    return split


def config(name: str) -> str:
    """Return the config of a demo run, as a relative path if it is below the working directory."""
    path = shipped(f"{name.replace('-', '/')}.yaml")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def fit_command(name: str) -> list[str]:
    """Return the command that trains a demo run."""
    return ["fit", "--config", config(name), "--run", name]


def closing() -> list[str]:
    """Return the results of the runs, and commands for the user's own text."""
    lstm, transformer, baseline = best_bits_per_byte()
    attempts = Run(directory_of(LSTM)).record["attempts"]
    stopped = f"interrupted and resumed at step {attempts[-1]['start_step']}" if attempts[1:] else "not interrupted"
    described, drawings = correct(CAPTIONER)
    transcribed, recordings = correct(RECOGNISER)
    return [
        f"- The LSTM was {stopped}.",
        f"- Bits per byte of held-out text: LSTM {lstm:.3f}, Transformer {transformer:.3f}, 5-gram {baseline:.3f}.",
        f"  The LSTM {against_baseline(lstm, baseline)}; the Transformer {against_baseline(transformer, baseline)}.",
        f"- The captioner describes {described} of {drawings} held-out drawings correctly.",
        f"- The speech recogniser transcribes {transcribed} of {recordings} held-out recordings without error.",
        "",
        "The same with your own text:",
        "  unroll prepare text my.txt --tokenizer character --cut tail --output data/my",
        f"  unroll fit --config {config(LSTM)} --data.init_args.dataset data/my --run my-lstm",
        "  unroll generate my-lstm --temperature 0.5",
        "  unroll compare my-lstm",
    ]


def best_bits_per_byte() -> tuple[float, float, float]:
    """Return the best validation bits per byte of the LSTM, the Transformer and the Kneser-Ney 5-gram."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        compare.main([LSTM, TRANSFORMER, "--json"])
    [table] = json.loads(printed.getvalue())["datasets"]
    found = {row["name"]: row["bits_per_byte"] for row in table["runs"]}
    return found[LSTM], found[TRANSFORMER], table["baseline"]["bits_per_byte"]


def against_baseline(bits: float, baseline: float) -> str:
    """Compare a network with the n-gram baseline, in words."""
    return "is better than the 5-gram" if bits < baseline else "is not better than the 5-gram"


def correct(name: str) -> tuple[int, int]:
    """Return how many generated texts of the test split equal one of their references, and the number of texts."""
    file = directory_of(name) / "written-test.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return sum(row["text"] in row["references"] for row in rows), len(rows)


def print_heading(text: str) -> None:
    """Print a heading, in bold on a terminal."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def start_command(arguments: Sequence[str]) -> BaseProcess:
    """Print a command and start it."""
    print(f"$ unroll {shlex.join(arguments)}", flush=True)
    return subcommands.start_subcommand(arguments)


def run_command(arguments: Sequence[str]) -> None:
    """Print a command and run it.

    Raises:
        Failed: the exit code is not 0.
    """
    if code := subcommands.wait(start_command(arguments)):
        raise Failed(code)


def train_and_stop(arguments: Sequence[str], directory: Path, stop_after: int) -> bool:
    """Start a training and send it SIGTERM after `stop_after` steps; return False if it finished before.

    Raises:
        Failed: the training failed, or did not exit with the code for "stopped and saved".
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
        print(f"Training finished before step {stop_after}: there is nothing to resume.")
        return False
    if code != TRY_AGAIN:
        raise Failed(code)
    print(f"Sent SIGTERM after step {stop_after}: exit code {code} (stopped and saved).", flush=True)
    return True


def confirm_continued(directory: Path, before: int) -> None:
    """Check that the last attempt resumed without losing a step of the journal.

    Raises:
        Failed: it began before the last step of the interrupted attempt.
    """
    step = Run(directory).attempt["start_step"]
    print(f"Last step in the journal: {before}. The second attempt resumed at step {step}.", flush=True)
    if step < before or step == 0:
        raise Failed(1)


def created(directory: Path) -> str | None:
    """Return the identity of the run in `directory`: a new run of the same name has another one."""
    record = Run(directory).record
    return f"{record['created']} {record['wandb_id']}" if record else None


def last_step(directory: Path) -> int:
    """Return the last optimizer step in the journal; 0 before the journal exists."""
    try:
        return max((int(row["step"]) for row in journal.read_journal(directory).rows), default=0)
    except FileNotFoundError:
        return 0
