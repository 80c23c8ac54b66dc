"""A run of the client and what it does not have yet: opened from the run's directory alone, by one process at a time.

Training and `unroll sync` open it, and a lock sees to it that one of them speaks to the server. Where it was opened
before it is resumed: the id was made before the first start and is kept in `run.json`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.runs.journal import FILE
from pipeline.runs.record import read_config
from pipeline.runs.run import Run, locked
from pipeline.tracking.journal_sync import Mirror
from pipeline.tracking.settings import ONLINE, tracking_of
from pipeline.tracking.wandb_payloads import Messages

SENT = "sent"  # in wandb/ of a run: numbers of the journal's lines that the server was sent
INIT, FINISH = 30, 15  # seconds that the client may take to begin, and to end within a grace period


class Busy(Exception):
    """Another process speaks to the server for this run."""


@contextmanager
def session(
    run: Run, mode: str, refused: Counter[int], upload: bool = False, **more: Any
) -> Iterator[tuple[Mirror, Messages]]:
    """A run of the client and what it does not have yet.

    Args:
        run: the run.
        mode: online, or offline: then it does not have this attempt.
        refused: how often each line was refused, in the sessions before too.
        upload: send files whatever the config says.
        more: further settings of the client.

    Raises:
        Exception: whatever the client raises where it cannot begin.
    """
    with client_run(run, mode, **more) as client:
        first, sent = (client.starting_step, run.path / "wandb" / SENT) if mode == ONLINE else (None, None)
        messages = Messages(client, run, upload or tracking_of(run).upload)
        mirror = Mirror(run.path / FILE, first, sent, refused)
        yield mirror, messages


@contextmanager
def client_run(run: Run, mode: str, **more: Any) -> Iterator[Any]:
    """The client's run, resumed where it exists, from the run's directory alone.

    Args:
        run: the run.
        mode: online or offline.
        more: further settings of the client.

    Raises:
        Busy: another process speaks to the server for this run.
        Exception: whatever the client raises where it cannot begin.
    """
    import wandb

    keep_files_in(run.path / "wandb", os.environ)
    with (run.path / "wandb" / ".lock").open("a") as held:
        if mode == ONLINE and not locked(held):
            raise Busy("another process sends this run: unroll sync, or its training")
        try:
            client = wandb.init(**_options(run, mode), settings=_settings(run, more))
            client.define_metric("*", step_metric="step")
            yield client
        finally:
            wandb.teardown()  # waits for the client's process, which still holds the run's id where it failed


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
        "allow_val_change": True,  # the config may name other numbers of steps or processes now
        "dir": run.path,
        "config": {**config, "config": read_config(run.path)},
    }


def _settings(run: Run, more: Mapping[str, Any]) -> Any:
    """Silent, no capture of the terminal, done within a grace period."""
    import wandb

    return wandb.Settings(
        silent=True,
        show_errors=False,
        console="off",
        disable_git=True,  # the commit is in the config; a remote's address may hold a password
        save_code=False,
        sweep_id=run.sweep.get("id"),
        stop_fn=partial(
            print, f"Weights & Biases asks to stop: `unroll cancel {run.name}`, or a signal, does", flush=True
        ),
        **{"init_timeout": INIT, "finish_timeout": FINISH, **more},
    )


def keep_files_in(directory: Path, environment: MutableMapping[str, str]) -> None:
    """Point the client's cache and staging area, by default in the home directory, to `directory`; silence it."""
    environment["WANDB_SILENT"] = "true"
    directory.mkdir(parents=True, exist_ok=True)  # the client writes to a temporary directory if it is missing
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        environment[variable] = str(directory / variable.split("_")[1].lower())
