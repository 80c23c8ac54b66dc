"""Which jobs of Slurm's belong to a run, and what the queue says of them.

runs/NAME/jobs.jsonl    one line for each submission: job, time, the attempt it was made for
          job.sbatch    the script that was submitted last
          slurm-*.out   what each job said; of an array whose runs have names, beside the run
"""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs.run import Run, directory_of, find_run, now

FILE = "jobs.jsonl"
WORDS = "%i|%T|%r|%L|%N"  # of squeue: id, state, reason, time left, nodes


class Queued(NamedTuple):
    """A job in the queue, in Slurm's words."""

    job: str
    state: str
    reason: str
    left: str
    nodes: str


def run_slurm_command(*command: str, said: str | None = None) -> str:
    """Give one of Slurm's commands; what it prints.

    Args:
        command: the command and its arguments.
        said: its standard input.

    Raises:
        ConfigError: Slurm is not here, or refuses.
    """
    try:
        ran = subprocess.run(command, input=said, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(f"no {command[0]} here: this wants a machine of a Slurm cluster") from None
    if ran.returncode:
        raise ConfigError(f"{command[0]} refused: {ran.stderr.strip() or ran.returncode}")
    return ran.stdout


def note(run: Path, job: str) -> None:
    """Record a submission in the run."""
    attempts = Run(run).record.get("attempts", [])
    with (run / FILE).open("a") as file:
        file.write(json.dumps({"job": job, "submitted": now(), "attempt": len(attempts) + 1}) + "\n")


def noted(run: Path) -> list[str]:
    """The jobs that a run was submitted as, oldest first; those that its attempts name as well."""
    file = run / FILE
    lines = file.read_text().splitlines() if file.exists() else []
    attempts = [attempt.get("slurm_job") for attempt in Run(run).record.get("attempts", [])]
    return list(dict.fromkeys([*(job for job in attempts if job), *(json.loads(line)["job"] for line in lines)]))


def queue() -> dict[str, Queued]:
    """The user's jobs that are not over, by id; an array's elements each by its own (12_3), and by the job's."""
    rows = run_slurm_command("squeue", "--me", "--noheader", "--array", f"--format={WORDS}|%A").splitlines()
    found: dict[str, Queued] = {}
    for row in rows:
        *words, number = row.split("|")
        found[words[0]] = found[number] = Queued(*words)
    return found


def live(run: Path, queued: dict[str, Queued]) -> Queued | None:
    """The job of a run that waits or runs."""
    return next((queued[job] for job in reversed(noted(run)) if job in queued), None)


def submitted(name: str) -> Path:
    """The directory of a run, begun or still waiting in the queue.

    Raises:
        CheckpointError: there is no such run.
    """
    for path in (directory_of(name), Path(name)):
        if (path / FILE).is_file():
            return path
    return find_run(name)


def logs_of(run: Path) -> list[Path]:
    """What the run's jobs said so far, the newest last: files in its directory, or beside it."""
    beside = (run.parent / f"slurm-{job}.out" for job in noted(run))
    return sorted([*run.glob("slurm-*.out"), *(file for file in beside if file.is_file())], key=os.path.getmtime)


def log_of(run: Path) -> Path:
    """What the run's newest job says.

    Raises:
        CheckpointError: no job of it has started yet.
    """
    if not (found := logs_of(run)):
        raise CheckpointError(f"run {run.name} has no log: it was not submitted by `unroll submit`, or waits still")
    return found[-1]
