"""`unroll sync RUN...`: send runs to Weights & Biases, from a machine that can reach it.

All attempts become one continuous W&B run, read from the journal; steps repeated after a rewind are sent once. Running
the command again sends only what is new.
"""

import argparse
import time
import warnings
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pipeline.arguments import Parser
from pipeline.errors import ConfigError
from pipeline.runs import identity
from pipeline.runs.run import Run, find_run, locked

if TYPE_CHECKING:
    from pipeline.tracking.journal_sync import Mirror
    from pipeline.tracking.shipping import Shipping
    from pipeline.tracking.wandb_payloads import Messages

PATIENCE = 120.0  # seconds in which the server must receive something
AGAIN = 5  # seconds between two tries while the server cannot be reached
# Disabled because they would describe this machine, not the one that trained.
DISABLED = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


class Stuck(Exception):
    """The server has no answer to an artifact."""


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
    parser.add_argument("--new-id", action="store_true", help="send everything to a new W&B run")
    parser.add_argument(
        "--every", type=float, default=10.0, metavar="S", help="polling interval of --watch in seconds (default: 10)"
    )
    options = parser.parse_args(argv)
    if options.watch and len(options.runs) > 1:
        raise ConfigError(f"--watch: expected one RUN, got {len(options.runs)}. Start one process per run")
    from pipeline.tracking.arrivals import renew_id

    runs = [Run(find_run(name)) for name in options.runs]
    _check_key()
    warnings.filterwarnings("default", module="pipeline")
    warnings.formatwarning = lambda message, *_, **__: f"unroll: warning: {message}\n"
    for run in runs:
        if identity.original(run):
            identity.settle(run)
        if options.new_id:
            (run.path / "wandb").mkdir(exist_ok=True)
            with (run.path / "wandb" / ".lock").open("a") as held:
                if not locked(held):
                    raise ConfigError(f"run {run.name} is being sent by its training. Use --new-id after it")
                renew_id(run)
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
    """Send a run and return the number of lines.

    Raises:
        ConfigError: rows did not arrive; the message names their number and the cause.
    """
    from pipeline.tracking.arrivals import Gone
    from pipeline.tracking.graphql import ServerError
    from pipeline.tracking.redact import error_line

    refused: Counter[int] = Counter()
    until, ships = time.monotonic() + PATIENCE, True
    while True:
        before = refused.total()
        try:
            return _session(run, options, refused, ships)
        except Stuck as error:
            ships = False
            print(f"run {run.name}: {error}; sending the rows without them", flush=True)
        except Gone as error:
            raise ConfigError(f"run {run.name}: {error}") from error
        except Exception as error:
            away = isinstance(error, ServerError) and not error.rejected
            if not options.watch and refused.total() == before and not (away and time.monotonic() < until):
                raise _unsent(run, error_line(error)) from error
            pause = 60 if options.watch else AGAIN if away else 0
            print(f"run {run.name}: {error_line(error)}; retrying in {pause} s", flush=True)
            time.sleep(pause)


def _unsent(run: Run, cause: str) -> ConfigError:
    from pipeline.tracking.arrivals import missing_rows, sync_line

    return ConfigError(
        f"run {run.name} could not be sent, {missing_rows(run)} rows are missing in Weights & Biases: {cause}. "
        f"Run `{sync_line(run)}` again where the server can be reached: it sends what is missing"
    )


def _session(run: Run, options: argparse.Namespace, refused: Counter[int], ships: bool) -> int:
    """Send all new journal lines (with `--watch`, until the run has finished) and return their number.

    Raises:
        Stuck: the server has no answer to an artifact; rows may be missing too.
    """
    from pipeline.tracking.arrivals import missing_rows, received
    from pipeline.tracking.progress import Progress
    from pipeline.tracking.settings import ONLINE
    from pipeline.tracking.wandb_session import session

    ends = options.watch or _finished(run)  # an unfinished run must not be marked as finished
    opened = session(
        run,
        ONLINE,
        refused,
        options.upload,
        ships,
        init_timeout=PATIENCE,
        finish_timeout=0.0,
        x_update_finish_state=ends,
        **DISABLED,
    )
    with nullcontext() if options.watch else Progress(run, PATIENCE).reported():
        with opened as (mirror, messages):
            count, shipping = mirror.follow(messages.send), messages.shipping
            if shipping is not None:
                shipping.introduce()
            if options.watch:
                count += _watch(run, mirror, messages, options.every)
            if shipping is not None:
                _ship(shipping, options.upload)
            messages.client.finish(exit_code=0)
        received(run)
        if missing_rows(run):
            raise TimeoutError("the server did not accept them")
    return count


def _ship(shipping: "Shipping", upload: bool) -> None:
    """Wait until the artifacts are sent; with `upload`, also those that were sent before."""
    from pipeline.tracking.wandb_session import end_client

    if upload:
        shipping.publish_all()
    if not shipping.close(None if upload else PATIENCE):
        end_client()  # it would wait for the artifacts before it sends the rows
        raise Stuck(f"no answer to the artifacts in {PATIENCE:.0f} s")


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
