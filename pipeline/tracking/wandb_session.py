"""A W&B client run and the journal lines it lacks: opened from the run directory, by one process at a time.

Training and `unroll sync` open it; a lock ensures that only one of them writes. An existing W&B run is resumed: its
id was created before the first start and is stored in `run.json`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.journal import FILE
from pipeline.runs.record import read_config
from pipeline.runs.run import Run, locked
from pipeline.tracking.journal_sync import Mirror
from pipeline.tracking.settings import ONLINE, tracking_of
from pipeline.tracking.wandb_payloads import Messages

if TYPE_CHECKING:
    from wandb import Run as ClientRun
    from wandb import Settings

SENT = "sent"  # file in wandb/ of a run with the numbers of the journal lines that were sent
INIT, FINISH = 30, 15  # seconds that the client may take to start, and to end within a grace period


class Busy(Exception):
    """Another process is writing to the W&B run."""


@contextmanager
def session(
    run: Run, mode: str, rejected: Counter[int], upload: bool = False, **more: object
) -> Iterator[tuple[Mirror, Messages]]:
    """Yield the follower of the journal and the sender of its records.

    Args:
        run: the run.
        mode: online or offline; offline, the whole newest attempt is sent.
        rejected: number of rejections per line, including earlier sessions.
        upload: upload files regardless of the config.
        more: further settings of the client.

    Raises:
        Exception: any error of the client at its start.
    """
    with client_run(run, mode, **more) as client:
        first, sent = (client.starting_step, run.path / "wandb" / SENT) if mode == ONLINE else (None, None)
        messages = Messages(client, run, upload or tracking_of(run).upload)
        mirror = Mirror(run.path / FILE, first, sent, rejected)
        yield mirror, messages


@contextmanager
def client_run(run: Run, mode: str, **more: object) -> Iterator["ClientRun"]:
    """Yield the W&B run, resumed if it exists, opened from the run directory alone.

    Args:
        run: the run.
        mode: online or offline.
        more: further settings of the client.

    Raises:
        Busy: another process is writing to the W&B run.
        Exception: any error of the client at its start.
    """
    import wandb

    keep_files_in(run.path / "wandb", os.environ)
    with (run.path / "wandb" / ".lock").open("a") as held:
        if mode == ONLINE and not locked(held):
            raise Busy("another process is sending this run: `unroll sync`, or its training")
        try:
            client = wandb.init(**_options(run, mode), settings=_settings(run, more))
            client.define_metric("*", step_metric="step")
            yield client
        finally:
            wandb.teardown()  # waits for the client's process, which would otherwise keep the run's id after an error


def _options(run: Run, mode: str) -> dict[str, Any]:
    tracking = tracking_of(run)
    kept = ("architecture", "parameters", "git_commit", "dataset")
    config = {name: run.record.get(name) for name in kept}
    return {
        "project": tracking.project,
        "entity": tracking.entity,
        "group": tracking.group,
        "tags": list(tracking.tags),
        "name": run.name,
        "id": run.record["wandb_id"],
        "mode": mode,
        "resume": "allow",
        "allow_val_change": True,  # the number of steps or processes in the config may change between attempts
        "dir": run.path,
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


def keep_files_in(directory: Path, environment: MutableMapping[str, str]) -> None:
    """Redirect the client's cache and staging area from the home directory to `directory`, and silence the client."""
    environment["WANDB_SILENT"] = "true"
    directory.mkdir(parents=True, exist_ok=True)  # if it is missing, the client uses a temporary directory
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        environment[variable] = str(directory / variable.split("_")[1].lower())
