"""The identity of a run: a copy of its directory gets its own, so that two runs never write into one W&B run."""

import secrets
from contextlib import suppress
from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.runs import record
from pipeline.runs.run import Run

# files of a run about its W&B run and its jobs, which a copy does not have
OF_ORIGINAL = ("wandb/sent", "wandb/server.json", "jobs.jsonl")


def settle(run: Run) -> None:
    """Give a copied run an identity of its own, and record the new path of a moved one.

    Raises:
        CheckpointError: the record cannot be written.
    """
    here = str(run.path.resolve())
    if origin := original(run):
        new = secrets.token_hex(4)
        copied = {"path": str(origin), "id": own_id(run), "attempts": len(run.record["attempts"])}
        run.write(id=new, wandb_id=new, name=run.name, path=here, copied_from=copied)
        for name in OF_ORIGINAL:
            with suppress(OSError):
                (run.path / name).unlink(missing_ok=True)
        print(f"run {run.name} is a copy of {origin}: its own id is {new}, also in Weights & Biases", flush=True)
    elif run.record.get("path") != here:
        run.write(name=run.name, path=here)


def original(run: Run) -> Path | None:
    """Return the directory that a run's directory was copied from: its record names it, and it still has the run."""
    here = run.path.resolve()
    place = Path(run.record.get("path") or here.with_name(run.record["name"]))
    try:
        if place == here or not record.is_run(place) or place.samefile(here):
            return None
        return place if own_id(Run(place)) == own_id(run) else None
    except (OSError, CheckpointError):
        return None


def own_id(run: Run) -> str:
    """Return the id of a run; that in Weights & Biases for a run of a version that recorded no other."""
    return str(run.record.get("id") or run.record["wandb_id"])
