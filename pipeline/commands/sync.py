"""`unroll sync RUN...`: send what Weights & Biases does not have of runs, from a machine that reaches it.

All attempts become one continuous run, from the journal: what a rewind measured twice is there once. To send the
same run again sends what is new; nothing is sent twice.
"""

import argparse
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from pipeline.arguments import Parser
from pipeline.errors import ConfigError
from pipeline.runs.run import Run, find_run

if TYPE_CHECKING:
    from pipeline.tracking.journal_sync import Mirror
    from pipeline.tracking.wandb_payloads import Messages

PATIENCE = 120.0  # seconds that the client may take to begin
# the client would describe the machine that sends, not the one that trained
OURSELVES = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


def main(argv: list[str]) -> int:
    """Send, and with `--watch` go on until the run has finished.

    Raises:
        CheckpointError: there is no such run.
        ConfigError: there is no key, the server refuses or cannot be reached, or the training itself sends this run.
    """
    parser = Parser(prog="unroll sync", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name under runs/, or path, of a run")
    parser.add_argument("--watch", action="store_true", help="follow one RUN until it has finished; Ctrl-C ends it")
    parser.add_argument("--upload", action="store_true", help="send the files of checkpoints and exported models too")
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="S", help="seconds between two looks (default: 10)"
    )
    options = parser.parse_args(argv)
    if options.watch and len(options.runs) > 1:
        raise ConfigError("--watch follows one RUN: start one for each")
    runs = [Run(find_run(name)) for name in options.runs]
    _check_key()
    warnings.filterwarnings("default", module="pipeline")
    for run in runs:
        print(f"run {run.name}: {_send(run, options)} lines of the journal sent", flush=True)
    return 0


def _check_key() -> None:
    from importlib.util import find_spec

    from pipeline.tracking.settings import has_key

    if find_spec("wandb") is None:
        raise ConfigError("wandb is not installed: pip install wandb")
    if not has_key():
        raise ConfigError("no key of Weights & Biases for its server: give `wandb login`, or set WANDB_API_KEY")


def _send(run: Run, options: argparse.Namespace) -> int:
    from pipeline.tracking.redact import error_line

    refused: Counter[int] = Counter()
    while True:
        before = refused.total()
        try:
            return _session(run, options, refused)
        except Exception as error:
            if not options.watch and refused.total() == before:  # it was not one of the lines
                raise ConfigError(f"run {run.name} could not be sent: {error_line(error)}") from error
            pause = 60 if options.watch else 0
            print(f"run {run.name}: {error_line(error)}; tried again in {pause} s", flush=True)
            time.sleep(pause)


def _session(run: Run, options: argparse.Namespace, refused: Counter[int]) -> int:
    """Lines sent until there is no more; with `--watch`, until the run has finished."""
    from pipeline.tracking.settings import ONLINE
    from pipeline.tracking.wandb_session import session

    ends = options.watch or _finished(run)  # else the run is not over, and must not be shown so
    settings: dict[str, Any] = {
        **OURSELVES,
        "init_timeout": PATIENCE,
        "finish_timeout": 0,
        "x_update_finish_state": ends,
    }
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
