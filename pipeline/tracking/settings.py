"""Settings of Weights & Biases: offline by default, one W&B run for all attempts."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError
from pipeline.runs.record import read_config
from pipeline.runs.run import Run

ONLINE, OFFLINE, DISABLED = "online", "offline", "disabled"
MODES = {"": OFFLINE, "offline": OFFLINE, "dryrun": OFFLINE, "online": ONLINE, "run": ONLINE, "disabled": DISABLED}
PROJECT = "unroll"
VARIABLES = {  # of the client; the config has no keys for the last three
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "group": "WANDB_RUN_GROUP",
    "tags": "WANDB_TAGS",
    "name": "WANDB_NAME",
    "notes": "WANDB_NOTES",
    "job_type": "WANDB_JOB_TYPE",
}


@dataclass(frozen=True)
class Tracking:
    """Tracking of a run in Weights & Biases; offline unless WANDB_MODE=online and an API key is available.

    Args:
        project: project of the run; None for WANDB_PROJECT, or `unroll` without it.
        entity: user or team that owns the project; None for WANDB_ENTITY, or the account's default.
        group: group under which W&B shows the run; None for WANDB_RUN_GROUP.
        tags: tags of the run; if empty, those of WANDB_TAGS.
        gradients: optimizer steps between two sets of gradient histograms; None to disable.
        diagnosis: optimizer steps between two diagnoses of the model's memory; None to disable.
        upload: whether to upload the files of checkpoints and exported models, not only references to them.
        code: whether to save and upload the diff between the checkout and its commit.
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    gradients: int | None = None
    diagnosis: int | None = None
    upload: bool = False
    code: bool = True


def tracking_of(run: Run) -> Tracking:
    """Return the tracking settings in the config of a run."""
    return Tracking(**read_config(run.path).get("tracking", {}))


def record_variables(run: Run) -> None:
    """Record the client's variables at the first start of a run: later attempts and `unroll sync` use the same."""
    if "tracking" not in run.record:
        run.write(tracking=_variables())


def wandb_labels(run: Run) -> dict[str, Any]:
    """Return project, entity, name, group, tags and notes of a run in W&B.

    The config wins over the variables that were recorded at the run's first start.
    """
    recorded: dict[str, str] = run.record.get("tracking", _variables())
    tags = [tag.strip() for tag in recorded.get("tags", "").split(",") if tag.strip()]
    config = tracking_of(run)
    configured = {"project": config.project, "entity": config.entity, "group": config.group, "tags": list(config.tags)}
    given = {key: value for key, value in configured.items() if value}
    return {"project": PROJECT, "entity": None, "name": run.name, **recorded, "tags": tags, **given}


def _variables() -> dict[str, str]:
    return {key: os.environ[name] for key, name in VARIABLES.items() if os.environ.get(name)}


def mode_given() -> str:
    """Return the mode of WANDB_MODE, which defaults to offline.

    Raises:
        ConfigError: it is not a mode.
    """
    given = os.environ.get("WANDB_MODE", "")
    if given.lower() not in MODES:
        raise ConfigError(f"WANDB_MODE={given}: expected online, offline or disabled, got {given}. Correct it")
    return MODES[given.lower()]


def tracking_mode() -> str:
    """Return the mode of WANDB_MODE; online requires an API key."""
    if (mode := mode_given()) == ONLINE and not has_key():
        warnings.warn("WANDB_MODE=online but no API key (run `wandb login`): recording offline", stacklevel=3)
        return OFFLINE
    return mode


def has_key() -> bool:
    """Return whether WANDB_API_KEY is set or `wandb login` stored a key for the server."""
    return api_key() is not None


def server() -> str:
    """Return the URL of the W&B server."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def api_key() -> str | None:
    """Return the API key for the server, or None; callers must not store or print it."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import read_netrc_auth  # private API, used only here

    try:
        return read_netrc_auth(host=server())
    except (AuthenticationError, ValueError, RuntimeError):  # the key or the server's URL is malformed, or no home
        return None
