"""Settings of Weights & Biases: offline by default, one W&B run for all attempts.

All its files are under `wandb/` of the run directory.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.runs.record import read_config
from pipeline.runs.run import Run

ONLINE, OFFLINE, DISABLED = "online", "offline", "disabled"  # values of WANDB_MODE


@dataclass(frozen=True)
class Tracking:
    """Tracking of a run in Weights & Biases; offline unless WANDB_MODE=online and an API key is available.

    Args:
        project: project of the run.
        entity: user or team that owns the project; None for the account's default.
        group: group under which W&B shows the run.
        tags: tags of the run.
        gradients: optimizer steps between two sets of gradient histograms; None to disable.
        diagnosis: optimizer steps between two diagnoses of the model's memory; None to disable.
        upload: whether to upload the files of checkpoints and exported models, not only references to them.
        code: whether to save and upload the diff between the checkout and its commit.
    """

    project: str = "unroll"
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


def tracking_mode() -> str:
    """Return the mode of WANDB_MODE, which defaults to offline; online requires an API key."""
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode == DISABLED:
        return DISABLED
    if mode == ONLINE and not has_key():
        warnings.warn("WANDB_MODE=online but no API key (run `wandb login`): recording offline", stacklevel=3)
        return OFFLINE
    return ONLINE if mode == ONLINE else OFFLINE


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
    except (AuthenticationError, ValueError):  # the key or the server's URL is malformed
        return None
