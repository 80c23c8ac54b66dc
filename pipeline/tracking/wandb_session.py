"""A W&B client run and the journal lines it lacks: opened from the run directory, by one process at a time.

Training and `unroll sync` open it; a lock ensures that only one of them writes. An existing W&B run is resumed: its
id was created before the first start and is stored in `run.json`.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.runs.journal import FILE
from pipeline.runs.record import read_config
from pipeline.runs.run import Run, locked
from pipeline.tracking.arrivals import SENT, Gone, received, remember
from pipeline.tracking.journal_sync import Mirror
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import ONLINE, tracking_of, wandb_labels
from pipeline.tracking.shipping import Shipping
from pipeline.tracking.wandb_payloads import Messages

if TYPE_CHECKING:
    from wandb import Run as ClientRun
    from wandb import Settings

INIT, FINISH = 30, 12  # seconds that the client may take to start, and to end within a grace period


class Busy(Exception):
    """Another process is writing to the W&B run."""


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
            except Exception:
                with suppress(Exception):  # else threads of the client outlive it and end with a traceback
                    client.finish(exit_code=1)
                raise
            except BaseException:
                end_client()  # Ctrl-C does not wait for a server
                raise
        finally:
            with suppress(ConnectionError):  # the client's process was killed
                wandb.teardown()  # waits for that process, which would otherwise keep the run's id after an error


def check_settings(run: Run) -> None:
    """Raise ConfigError for settings that the client rejects before it connects to a server."""
    import wandb

    labels = wandb_labels(run)
    try:
        with files_in(run.path / "wandb"):
            wandb.Settings(project=labels["project"], entity=labels["entity"], run_tags=labels["tags"])
    except Exception as error:  # of the client, or of the library that checks its settings
        raise ConfigError(f"tracking: Weights & Biases rejects the settings: {error_line(error)}") from error


def end_client() -> None:
    """Kill the client's process, a child of this one, where /proc identifies it."""
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread or the child has ended
            for child in children.read_text().split():
                with suppress(OSError):
                    if Path(f"/proc/{child}/exe").readlink().name == "wandb-core":
                        os.kill(int(child), signal.SIGKILL)


def _opened(run: Run, mode: str, more: Mapping[str, object]) -> "ClientRun":
    import wandb

    try:
        client: ClientRun = wandb.init(**_options(run, mode), settings=_settings(run, more))
    except Exception as error:
        if "created and deleted" in str(error):  # the server's words
            raise Gone(run) from error
        raise
    if mode == ONLINE:
        remember(run, client.entity, max(client.starting_step - 1, 0))
    return client


def _options(run: Run, mode: str) -> dict[str, Any]:
    kept = ("architecture", "parameters", "git_commit", "dataset", "from")
    config = {name: run.record[name] for name in kept if name in run.record}
    return {
        **wandb_labels(run),
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
        sweep_id=run.sweep.get("id") if run.sweep.get("run_id") == run.record["wandb_id"] else None,  # not of a copy
        stop_fn=partial(
            print, f"Weights & Biases requests a stop: use `unroll cancel {run.name}` or send a signal", flush=True
        ),
        **{"init_timeout": INIT, "finish_timeout": FINISH, **more},
    )


@contextmanager
def files_in(directory: Path) -> Iterator[None]:
    """Keep the client's cache and staging area in `directory` unless variables name others; silence it.

    The client looks for its settings in the home directory, and a user of a container may have none.
    """
    before = dict(os.environ)
    own = {"WANDB_CACHE_DIR": str(directory / "cache"), "WANDB_DATA_DIR": str(directory / "data")}
    given = {name: before[name] for name in own if before.get(name)}
    quiet = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}  # it prints the failures of its own reports
    changed = own | given | quiet | ({} if _has_home() else {"HOME": str(directory.resolve())})
    os.environ.update(changed)
    try:
        yield
    finally:
        for name in changed:
            del os.environ[name]
        os.environ.update({name: before[name] for name in changed if name in before})


def _has_home() -> bool:
    try:
        return Path.home().is_dir()
    except RuntimeError:  # neither HOME nor an entry of the user's name
        return False
