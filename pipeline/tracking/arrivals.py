"""What the Weights & Biases server has of a run, as it reported last."""

import json
import secrets
import shlex
from contextlib import suppress
from typing import NamedTuple

from pipeline.runs.journal import FILE
from pipeline.runs.run import Run, name_of
from pipeline.tracking.graphql import last_line
from pipeline.tracking.journal_sync import count_rows
from pipeline.tracking.settings import wandb_labels

SENT = "sent"  # file in wandb/ of a run with the numbers of the journal lines that were sent
KNOWN = "server.json"  # file in wandb/ of a run: see `known`


class Known(NamedTuple):
    """What the server has of a run."""

    place: str = ""  # see `place_of`; empty before the first session
    entity: str | None = None  # as the server named it
    line: int = 0  # the last line of the journal


class Gone(Exception):
    """The server had the W&B run and does not have it any more.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(
            f"its W&B run {place_of(run)} was deleted, or this API key does not see it. "
            f"Run `{sync_line(run)} --new-id` to send everything to a new one"
        )


def sync_line(run: Run) -> str:
    """Return the command that sends a run."""
    return f"unroll sync {shlex.quote(name_of(run.path))}"


def received(run: Run, seconds: float = 30.0) -> int:
    """Return the number of the last journal line that the server has; 0 before the first.

    Raises:
        ServerError: the server cannot be reached or rejects the API key.
        Gone: the server had the run and does not have it any more.
    """
    labels, before = wandb_labels(run), known(run)
    here = before.place == place_of(run)
    entity = labels["entity"] or (before.entity if here else None)
    line = last_line(labels["project"], entity, run.record["wandb_id"], seconds)
    if line is None and here:
        raise Gone(run)
    if here and line is not None:
        remember(run, entity, line)
    return line or 0


def place_of(run: Run) -> str:
    """Return PROJECT/ID of the run in W&B, after ENTITY/ unless that is the account's default."""
    labels = wandb_labels(run)
    return "/".join(part for part in (labels["entity"], labels["project"], run.record["wandb_id"]) if part)


def missing_rows(run: Run) -> int:
    """Return how many rows the server lacks as far as known, without those that a rewind replaced."""
    return count_rows(run.path / FILE, known(run).line + 1, run.path / "wandb" / SENT)


def known(run: Run) -> Known:
    """Return what the server has of the run, as far as known."""
    with suppress(OSError, ValueError, TypeError):
        return Known(**json.loads((run.path / "wandb" / KNOWN).read_text()))
    return Known()


def remember(run: Run, entity: str | None, line: int) -> None:
    """Store what the server has, once the client has opened the run there."""
    now = Known(place_of(run), entity, line)
    if now != known(run):
        with suppress(OSError):  # a full disk must not block the upload
            (run.path / "wandb" / KNOWN).write_text(json.dumps(now._asdict()))


def renew_id(run: Run) -> None:
    """Give the run a new id in W&B, which has no rows yet."""
    for name in (SENT, KNOWN):
        (run.path / "wandb" / name).unlink(missing_ok=True)
    run.write(wandb_id=secrets.token_hex(4))
