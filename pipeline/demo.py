"""`unroll demo`: texts, drawings and sounds, four models, a stop in mid-training and a table, by a user's commands.

Each command is shown before it runs in a process of its own; the first that fails ends the demo with its exit
code. The corpus is Python's own language reference, which every Python has, so nothing is downloaded.
"""

import argparse
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import journal
from pipeline.arguments import Parser
from pipeline.dataset import Dataset
from pipeline.errors import TRY_AGAIN, ConfigError
from pipeline.run import Run, directory_of

DATASET = Path("data/pydoc")
PREPARE = f"prepare text builtin --output {DATASET} --tokenizer bpe --vocab-size 2048 --validation-share 0.1"
CONFIGS = {"demo-lstm": Path("configs/demo/lstm.yaml"), "demo-transformer": Path("configs/demo/transformer.yaml")}
DRAWINGS, DRAWN = Path("data/drawings"), Path("data/drawings.jpg")
DRAW = f"prepare captions builtin:1500 --output {DRAWINGS} --tokenizer word --size 64"
CAPTIONS = Path("configs/demo/captions.yaml")
KEYS, DIALLED = Path("data/keys"), Path("data/dialled.flac")
DIAL = f"prepare audio builtin:1000 --output {KEYS} --rate 8000 --tokenizer word"
SOUNDS = Path("configs/demo/audio.yaml")
SAMPLE = ["--prompt", "The for statement is used to", "--tokens", "60", "--temperature", "0.7", "--seed", "1"]


class Failed(Exception):
    """A command of the demo ended with an exit code that was not expected."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


def main(argv: list[str]) -> int:
    """Run the demo in the root of the repository; the exit code is that of the first command that fails.

    Raises:
        ConfigError: the demo's configs are not below the working directory.
    """
    options = parse(argv)
    if missing := [str(config) for config in (*CONFIGS.values(), CAPTIONS, SOUNDS) if not config.is_file()]:
        raise ConfigError(f"no {missing[0]} here: run the demo in the root of the repository")
    began = time.monotonic()
    try:
        show(options.steps, options.stop_after)
    except Failed as failure:
        print(f"\nThe demo ends here: that command left with exit code {failure.exit_code}.", flush=True)
        return failure.exit_code
    print(f"\nThe demo took {time.monotonic() - began:.0f} seconds.")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="unroll demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, metavar="N", help="optimizer steps of each model (default: as in configs/demo)")
    add("--stop-after", type=int, default=150, metavar="STEP", help="when the LSTM is stopped (default: 150)")
    return parser.parse_args(argv)


def show(steps: int | None, stop_after: int) -> None:
    """The whole demo, command by command.

    Raises:
        Failed: a command failed, or the stopped run did not continue where it stood.
    """
    limit = [] if steps is None else [f"--trainer.max_steps={steps}"]
    lstm, transformer = (["fit", "--config", str(path), "--run", name] for name, path in CONFIGS.items())
    say("1. Text becomes a dataset.")
    if DATASET.exists():
        print(f"{DATASET} is there already.")
    else:
        run(shlex.split(PREPARE))
    say("2. An LSTM is trained by two processes, and asked to stop in the middle (SIGTERM).")
    stopped = train_and_stop([*lstm, *limit, "--resume", "never"], directory_of("demo-lstm"), stop_after)
    if stopped:
        say("3. Started again, the run continues where it stood.")
        before = last_step(directory_of("demo-lstm"))
        run([*lstm, *limit])
        confirm_continued(directory_of("demo-lstm"), before)
    say("4. A Transformer is trained on the same text.")
    run([*transformer, *limit, "--resume", "never"])
    say("5. Both write.")
    for name in CONFIGS:
        run(["generate", name, *SAMPLE])
    say("6. Side by side, with a counted 5-gram as the honest baseline.")
    run(["compare", *CONFIGS])
    print("Python's topics repeat one another: whole passages of the validation text stand in the training text too,")
    print("and counting recalls them.")
    say("7. Another network looks at drawings and learns to say what is on them.")
    describe(limit)
    say("8. A fourth one hears telephone keys in noise and learns to write down which were pressed.")
    transcribe(limit)


def describe(limit: list[str]) -> None:
    """Images with captions, made on the spot; a captioner, and where it looks.

    Raises:
        Failed: a command failed.
    """
    held_out = learn(DRAWINGS, DRAW, CAPTIONS, "demo-captions", limit)
    DRAWN.write_bytes(held_out.value("image", 0))
    picture = directory_of("demo-captions") / "attention.png"
    run(["generate", "demo-captions", "--image", str(DRAWN), "--attention", str(picture)])
    print(f"People said: {held_out.references(0)[0]}. Where the network looked for each word: {picture}", flush=True)


def transcribe(limit: list[str]) -> None:
    """Key tones, made on the spot; a transcriber, and what it hears.

    Raises:
        Failed: a command failed.
    """
    held_out = learn(KEYS, DIAL, SOUNDS, "demo-audio", limit)
    DIALLED.write_bytes(held_out.value("audio", 0))
    run(["generate", "demo-audio", "--audio", str(DIALLED)])
    print(f"The keys that were pressed: {held_out.references(0)[0]}. To be heard: {DIALLED}", flush=True)


def learn(dataset: Path, prepare: str, config: Path, name: str, limit: list[str]) -> Any:
    """Prepare a dataset unless it is there, train and test a model; the split that it was tested on.

    Raises:
        Failed: a command failed.
    """
    if not dataset.exists():
        run(shlex.split(prepare))
    run(["fit", "--config", str(config), "--run", name, *limit, "--resume", "never"])
    run(["test", "--run", name])
    return Dataset.open(dataset).splits["test"]


def say(text: str) -> None:
    """A heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Show a command and start it."""
    print(f"$ unroll {shlex.join(arguments)}", flush=True)
    return subprocess.Popen([sys.executable, "-m", "pipeline", *arguments])


def run(arguments: Sequence[str]) -> None:
    """Show a command and run it to its end.

    Raises:
        Failed: its exit code is not 0.
    """
    with start(arguments) as process:
        code = process.wait()
    if code:
        raise Failed(code if code > 0 else 128 - code)


def train_and_stop(arguments: Sequence[str], directory: Path, stop_after: int) -> bool:
    """Start a training and send it SIGTERM once its journal shows `stop_after` steps; was it stopped in time?

    Raises:
        Failed: it failed, or did not leave with the exit code that asks to be started again.
    """
    older = created(directory)
    with start(arguments) as process:
        while process.poll() is None:
            if created(directory) != older and last_step(directory) >= stop_after:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)
        code = process.wait()
    if code == 0:
        print(f"It finished before step {stop_after} was seen: there is nothing to continue.")
        return False
    if code != TRY_AGAIN:
        raise Failed(code if code > 0 else 128 - code)
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
    """The identity of the run in `directory`, so that a new run of the same name is told from an old one."""
    record = Run(directory).record
    return f"{record['created']} {record['wandb_id']}" if record else None


def last_step(directory: Path) -> int:
    """The last optimizer step in the journal; 0 while there is no journal."""
    try:
        return max((int(row["step"]) for row in journal.read(directory).rows), default=0)
    except FileNotFoundError:
        return 0
