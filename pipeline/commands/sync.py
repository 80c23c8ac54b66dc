"""`unroll sync RUN...`: send runs to Weights & Biases, from a machine that can reach it.

All attempts become one continuous W&B run, read from the journal; steps repeated after a rewind are sent once. Running
the command again sends only what is new.
"""

import argparse
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING

from pipeline.arguments import Parser
from pipeline.errors import ConfigError
from pipeline.runs import identity
from pipeline.runs.run import Run, find_run

if TYPE_CHECKING:
    from pipeline.tracking.journal_sync import Mirror
    from pipeline.tracking.wandb_payloads import Messages

PATIENCE = 120.0  # seconds until the client must have started
# Disabled because they would describe this machine, not the one that trained.
DISABLED = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


def main(argv: list[str]) -> int:
    """Send runs; with `--watch`, until the run has finished.

    Raises:
        CheckpointError: a run does not exist.
        ConfigError: no API key, the server refuses or is unreachable, or the training itself sends this run.
    """
    parser = Parser(prog="unroll sync", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a run under runs/, or its path")
    parser.add_argument("--watch", action="store_true", help="follow one RUN until it has finished, or until Ctrl-C")
    parser.add_argument("--upload", action="store_true", help="also send files of checkpoints and exported models")
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="S", help="polling interval of --watch in seconds (default: 10)"
    )
    options = parser.parse_args(argv)
    if options.watch and len(options.runs) > 1:
        raise ConfigError(f"--watch: expected one RUN, got {len(options.runs)}. Start one process per run")
    runs = [Run(find_run(name)) for name in options.runs]
    _check_key()
    warnings.filterwarnings("default", module="pipeline")
    for run in runs:
        if identity.original(run):
            identity.settle(run)
        print(f"run {run.name}: sent {_send(run, options)} lines of the journal", flush=True)
    return 0


def _check_key() -> None:
    from importlib.util import find_spec

    from pipeline.tracking.settings import has_key

    if find_spec("wandb") is None:
        raise ConfigError("wandb is not installed. Run `pip install wandb`")
    if not has_key():
        raise ConfigError("Weights & Biases API key not found. Run `wandb login`, or set WANDB_API_KEY")


def _send(run: Run, options: argparse.Namespace) -> int:
    from pipeline.tracking.redact import error_line

    refused: Counter[int] = Counter()
    while True:
        before = refused.total()
        try:
            return _session(run, options, refused)
        except Exception as error:
            if not options.watch and refused.total() == before:  # no single journal line is to blame
                raise ConfigError(f"run {run.name} could not be sent: {error_line(error)}") from error
            pause = 60 if options.watch else 0
            print(f"run {run.name}: {error_line(error)}; retrying in {pause} s", flush=True)
            time.sleep(pause)


def _session(run: Run, options: argparse.Namespace, refused: Counter[int]) -> int:
    """Send all new journal lines (with `--watch`, until the run has finished) and return their number."""
    from pipeline.tracking.settings import ONLINE
    from pipeline.tracking.wandb_session import session

    ends = options.watch or _finished(run)  # an unfinished run must not be marked as finished
    timeouts = {"init_timeout": PATIENCE, "finish_timeout": 0.0}
    settings = {**DISABLED, **timeouts, "x_update_finish_state": ends}
    with session(run, ONLINE, refused, options.upload, **settings) as (mirror, messages):
        count = mirror.follow(messages.send)
        messages.introduce()
        if options.watch:
            count += _watch(run, mirror, messages, options.every)
        if options.upload:
            messages.upload_all()
        messages.client.finish(exit_code=0)
    return count


def _watch(run: Run, mirror: "Mirror", messages: "Messages", every: float) -> int:
    count = 0
    try:
        while not _finished(run):
            time.sleep(every)
            count += mirror.follow(messages.send)
    except KeyboardInterrupt:
        pass
    return count + mirror.follow(messages.send)


def _finished(run: Run) -> bool:
    attempts = Run(run.path).record["attempts"]
    return bool(attempts) and attempts[-1]["reason"] == "finished"
