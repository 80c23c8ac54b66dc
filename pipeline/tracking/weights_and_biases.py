"""Weights & Biases beside the journal: offline unless asked for, one run over all attempts, never in the way.

Everything it keeps lies under `wandb/` of the run directory; `wandb sync RUN/wandb/offline-run-*` sends later
what was recorded offline.
"""

import netrc
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pipeline.tracking.patient import PatientWandbLogger

ONLINE, OFFLINE, DISABLED = "online", "offline", "disabled"  # the client's own words


@dataclass(frozen=True)
class Tracking:
    """Where the run stands in Weights & Biases; offline unless WANDB_MODE=online and a key are there.

    Args:
        project: project that the run belongs to.
        entity: user or team that owns the project; the account's default if none.
        group: runs of one group are shown together.
        tags: words to find the run by.
    """

    project: str = "unroll"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


def wandb_logger(
    tracking: Tracking, run_dir: Path, run_id: str, name: str, config: Mapping[str, Any]
) -> "PatientWandbLogger | None":
    """The Lightning logger of a run; None where WANDB_MODE=disabled or the client is not installed.

    Args:
        tracking: where the run stands in Weights & Biases.
        run_dir: directory of the run; all files go to `wandb/` in it.
        run_id: the id kept in `run.json`, the same for every attempt.
        name: what people read.
        config: logged once: the resolved config, git commit, dataset checksum, number of parameters.
    """
    mode = wanted_mode(os.environ)
    if mode == DISABLED:
        return None
    if find_spec("wandb") is None:
        warnings.warn("wandb is not installed: this run is recorded in its journal alone", stacklevel=2)
        return None
    keep_files_in(run_dir / "wandb", os.environ)
    from pipeline.tracking.patient import PatientWandbLogger, settings

    return PatientWandbLogger(
        project=tracking.project,
        entity=tracking.entity,
        group=tracking.group,
        tags=list(tracking.tags),
        name=name,
        id=run_id,
        dir=run_dir,
        save_dir=None,
        config=dict(config),
        mode=mode,
        settings=settings(),
    )


def wanted_mode(environment: Mapping[str, str]) -> str:
    """Online only if WANDB_MODE says so and a key is there; disabled if it says so; else offline."""
    asked = environment.get("WANDB_MODE", "").lower()
    if asked == DISABLED:
        return DISABLED
    if asked == ONLINE and not has_key(environment):
        warnings.warn("WANDB_MODE=online but no API key (wandb login): recording offline", stacklevel=3)
        return OFFLINE
    return ONLINE if asked == ONLINE else OFFLINE


def has_key(environment: Mapping[str, str]) -> bool:
    """Whether WANDB_API_KEY is set or `wandb login` left a key for the server; the key itself is not kept."""
    if environment.get("WANDB_API_KEY"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    home = Path(environment.get("HOME", "~")).expanduser()
    for path in (environment.get("NETRC"), home / ".netrc", home / "_netrc"):
        try:
            if path and netrc.netrc(str(path)).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def keep_files_in(directory: Path, environment: Any) -> None:
    """Point the client's cache and staging area, by default in the home directory, to `directory`."""
    directory.mkdir(parents=True, exist_ok=True)  # the client writes to a temporary directory if it is missing
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        environment[variable] = str(directory / variable.split("_")[1].lower())
