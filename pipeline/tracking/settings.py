"""Weights & Biases beside the journal: offline unless asked for, one run over all attempts, never in the way.

Everything it keeps lies under `wandb/` of the run directory.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.runs.record import read_config
from pipeline.runs.run import Run

ONLINE, OFFLINE, DISABLED = "online", "offline", "disabled"  # the client's own words


@dataclass(frozen=True)
class Tracking:
    """Where the run stands in Weights & Biases; offline unless WANDB_MODE=online and a key are there.

    Args:
        project: project that the run belongs to.
        entity: user or team that owns the project; the account's default if none.
        group: runs of one group are shown together.
        tags: words to find the run by.
        gradients: optimizer steps from one set of histograms of the gradients to the next; None for none.
        diagnosis: optimizer steps from one measurement of what the model remembers to the next; None for none.
        upload: send the files of checkpoints and exported models; else what they are and where they lie.
        code: keep and send what the checkout differs in from its commit.
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
    """What the config of a run says of its tracking."""
    return Tracking(**read_config(run.path).get("tracking", {}))


def wanted_mode() -> str:
    """Online only if WANDB_MODE says so and a key is there; disabled if it says so; else offline."""
    asked = os.environ.get("WANDB_MODE", "").lower()
    if asked == DISABLED:
        return DISABLED
    if asked == ONLINE and not has_key():
        warnings.warn("WANDB_MODE=online but no API key (wandb login): recording offline", stacklevel=3)
        return OFFLINE
    return ONLINE if asked == ONLINE else OFFLINE


def has_key() -> bool:
    """Whether WANDB_API_KEY is set or `wandb login` left a key for the server."""
    return api_key() is not None


def server() -> str:
    """The address of the server."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")


def api_key() -> str | None:
    """The key for the server, for the one who asks: nobody keeps or prints it; None where there is none."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib.wbauth import read_netrc_auth  # private: here alone

    try:
        return read_netrc_auth(host=server())
    except (AuthenticationError, ValueError):  # it has not the form of a key, or the server not that of an address
        return None
