"""A W&B client run and the journal lines it lacks: opened from the run directory, by one process at a time.

Training and `unroll sync` open it; a lock ensures that only one of them writes. An existing W&B run is resumed: its
id was created before the first start and is stored in `run.json`.
"""

import json
import os
import secrets
import shlex
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.journal import FILE
from pipeline.runs.record import read_config
from pipeline.errors import ConfigError
from pipeline.runs.run import Run, locked, name_of
from pipeline.tracking.graphql import last_line
from pipeline.tracking.journal_sync import Mirror, count_rows
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import ONLINE, labels_of, tracking_of
from pipeline.tracking.shipping import Shipping
from pipeline.tracking.wandb_payloads import Messages

if TYPE_CHECKING:
    from wandb import Run as ClientRun
    from wandb import Settings

SENT = "sent"  # file in wandb/ of a run with the numbers of the journal lines that were sent
KNOWN = "server.json"  # file in wandb/ of a run: see `known`
INIT, FINISH = 30, 12  # seconds that the client may take to start, and to end within a grace period


class Busy(Exception):
    """Another process is writing to the W&B run."""


class Gone(Exception):
    """The server had the W&B run and does not have it any more.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        new = f"{sync_line(run)} --new-id"
        super().__init__(f"its W&B run {known(run)['place']} was deleted. Run `{new}` to send everything to a new one")


def sync_line(run: Run) -> str:
    """Return the command that sends a run."""
    return f"unroll sync {shlex.quote(name_of(run.path))}"


@contextmanager
def session(
    run: Run, mode: str, rejected: Counter[int], upload: bool = False, ships: bool = True, **more: object
) -> Iterator[tuple[Mirror, Messages]]:
    """Yield the follower of the journal and the sender of its records.

    Args:
        run: the run.
        mode: online or offline; offline, the whole newest attempt is sent.
        rejected: number of rejections per line, including earlier sessions.
        upload: upload files regardless of the config.
        ships: whether to send artifacts; False leaves them out.
        more: further settings of the client.

    Raises:
        ServerError: the server cannot be reached or rejects the API key.
        Gone: the W&B run was deleted.
        Exception: any other error of the client at its start.
    """
    with client_run(run, mode, **more) as client:
        first, sent = (client.starting_step, run.path / "wandb" / SENT) if mode == ONLINE else (None, None)
        shipping = Shipping(client, run, upload or tracking_of(run).upload, mode == ONLINE) if ships else None
        mirror = Mirror(run.path / FILE, first, sent, rejected)
        try:
            yield mirror, Messages(client, run, shipping)
        finally:
            if shipping is not None:
                shipping.close(0)


@contextmanager
def client_run(run: Run, mode: str, **more: object) -> Iterator["ClientRun"]:
    """Yield the W&B run, resumed if it exists, opened from the run directory alone.

    Args:
        run: the run.
        mode: online or offline.
        more: further settings of the client.

    Raises:
        Busy: another process is writing to the W&B run.
        ServerError: the server cannot be reached or rejects the API key.
        Gone: the W&B run was deleted.
        Exception: any other error of the client at its start.
    """
    import wandb

    (run.path / "wandb").mkdir(parents=True, exist_ok=True)
    with (run.path / "wandb" / ".lock").open("a") as held, files_in(run.path / "wandb"):
        if mode == ONLINE:
            if not locked(held):
                raise Busy("another process is sending this run: `unroll sync`, or its training")
            received(run)  # fails at once, where the client would repeat its requests until a timeout
        try:
            client = _opened(run, mode, more)
            try:
                client.define_metric("*", step_metric="step")
                yield client
            except BaseException:
                with suppress(Exception):  # else threads of the client outlive it and end with a traceback
                    client.finish(exit_code=1)
                raise
        finally:
            wandb.teardown()  # waits for the client's process, which would otherwise keep the run's id after an error


def check_settings(run: Run) -> None:
    """Raise ConfigError for settings that the client rejects before it connects to a server."""
    import wandb

    labels = labels_of(run)
    try:
        with files_in(run.path / "wandb"):
            wandb.Settings(project=labels["project"], entity=labels["entity"], run_tags=labels["tags"])
    except Exception as error:  # of the client, or of the library that checks its settings
        raise ConfigError(f"tracking: Weights & Biases rejects the settings: {error_line(error)}") from error


def received(run: Run, seconds: float = 3.0) -> int:
    """Return the number of the last journal line that the server has; 0 before the first.

    Raises:
        ServerError: the server cannot be reached or rejects the API key.
        Gone: the server had the run and does not have it any more.
    """
    labels, run_id, place = labels_of(run), run.record["wandb_id"], known(run)["place"]
    entity = labels["entity"] or place.split("/")[0] or None
    here = place == f"{entity}/{labels['project']}/{run_id}"
    line = last_line(labels["project"], entity if here else labels["entity"], run_id, seconds)
    if line is None and here:
        raise Gone(run)
    _remember(run, place if here else "", line or 0)
    return line or 0


def missing_rows(run: Run) -> int:
    """Return how many rows the server lacks as far as known, without those that a rewind replaced."""
    return count_rows(run.path / FILE, known(run)["line"] + 1, run.path / "wandb" / SENT)


def known(run: Run) -> dict[str, Any]:
    """Return what is known of the run at the server: the `place` ENTITY/PROJECT/ID, and the last `line` it has."""
    with suppress(OSError, ValueError):
        return dict(json.loads((run.path / "wandb" / KNOWN).read_text()))
    return {"place": "", "line": 0}


def _remember(run: Run, place: str, line: int) -> None:
    if (now := {"place": place, "line": line}) != known(run):
        with suppress(OSError):  # a full disk must not block the upload
            (run.path / "wandb" / KNOWN).write_text(json.dumps(now))


def forget(run: Run) -> None:
    """Give the run a new id in W&B, which has no rows yet."""
    for name in (SENT, KNOWN):
        (run.path / "wandb" / name).unlink(missing_ok=True)
    run.write(wandb_id=secrets.token_hex(4))


def end_client() -> None:
    """Kill the client's process, a child of this one, where /proc identifies it."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{child}/exe").readlink().name == "wandb-core":
                    os.kill(int(child), signal.SIGKILL)


def _opened(run: Run, mode: str, more: Mapping[str, Any]) -> "ClientRun":
    import wandb

    try:
        client: ClientRun = wandb.init(**_options(run, mode), settings=_settings(run, more))
    except Exception as error:
        if "created and deleted" in str(error):  # the server's words
            raise Gone(run) from error
        raise
    if mode == ONLINE:
        _remember(run, f"{client.entity}/{client.project}/{client.id}", max(client.starting_step - 1, 0))
    return client


def _options(run: Run, mode: str) -> dict[str, Any]:
    kept = ("architecture", "parameters", "git_commit", "dataset")
    config = {name: run.record.get(name) for name in kept}
    return {
        **labels_of(run),
        "id": run.record["wandb_id"],
        "mode": mode,
        "resume": "allow",
        "allow_val_change": True,  # the number of steps or processes in the config may change between attempts
        "dir": os.environ.get("WANDB_DIR") or run.path,
        "config": {**config, "config": read_config(run.path)},
    }


def _settings(run: Run, more: Mapping[str, Any]) -> "Settings":
    """Return settings of the client: silent, no capture of the terminal, a limited time to finish."""
    import wandb

    return wandb.Settings(
        silent=True,
        show_errors=False,
        console="off",
        disable_git=True,  # the commit is in the config, and the URL of a remote may contain a password
        save_code=False,
        sweep_id=run.sweep.get("id"),
        stop_fn=partial(
            print, f"Weights & Biases requests a stop: use `unroll cancel {run.name}` or send a signal", flush=True
        ),
        **{"init_timeout": INIT, "finish_timeout": FINISH, **more},
    )


@contextmanager
def files_in(directory: Path) -> Iterator[None]:
    """Keep the client's cache, staging area and settings in `directory` unless variables name others; silence it.

    The settings and the keys of `wandb login` are in the home directory, and a user of a container may have none.
    """
    own = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data"}
    if not _has_home():
        own |= {"WANDB_CONFIG_DIR": "config", "NETRC": "netrc"}
    own = {name: str(directory / part) for name, part in own.items()}
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}  # it prints the failures of its own reports
    before = dict(os.environ)
    os.environ.update({name: value for name, value in own.items() if not before.get(name)} | quiet)
    try:
        yield
    finally:
        for name in own | quiet:
            os.environ.pop(name, None) if name not in before else os.environ.update({name: before[name]})


def _has_home() -> bool:
    try:
        return Path.home().is_dir()
    except RuntimeError:  # neither HOME nor an entry of the user's name
        return False
