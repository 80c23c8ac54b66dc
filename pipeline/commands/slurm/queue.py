"""The Slurm jobs of a run, and their state in the queue.

runs/NAME/jobs.jsonl    one line per submission: job, time, number of the attempt
          job.sbatch    the last submitted script
          slurm-*.out   the log of each job; for arrays of named runs, beside the run
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs.run import Run, directory_of, find_run, now

FILE = "jobs.jsonl"
OF_JOBS = re.compile(r"SLURM|SBATCH_|SALLOC_|SRUN_")
OF_LAUNCHERS = re.compile(
    r"(RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|NODE_RANK|CUDA_VISIBLE_DEVICES)$|LOCAL_|GROUP_|ROLE_|TORCHELASTIC_"
)  # torchrun's, Lightning's and those of jobs with GPUs
WORDS = "%i|%T|%r|%L|%N"  # of squeue: id, state, reason, time left, nodes


class Queued(NamedTuple):
    """A job in the queue, as printed by squeue."""

    job: str
    state: str
    reason: str
    left: str
    nodes: str


def outside_of_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what a job or a launcher around this process has set.

    sbatch would take such variables for options, and pass them on to the new job.
    """
    inside = "SLURM_JOB_ID" in environment
    return {
        name: value
        for name, value in environment.items()
        if name in ("SLURM_CONF", "SLURM_JWT") or not (OF_LAUNCHERS.match(name) or (inside and OF_JOBS.match(name)))
    }


def run_slurm_command(*command: str, stdin: str | None = None) -> str:
    """Run a command of Slurm and return its output.

    Args:
        command: the command and its arguments.
        stdin: standard input.

    Raises:
        ConfigError: the command is not installed, or fails.
    """
    try:
        ran = subprocess.run(command, input=stdin, capture_output=True, text=True, env=outside_of_jobs(os.environ))
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} not found. Run this command on a node of a Slurm cluster") from None
    if ran.returncode:
        raise ConfigError(f"{command[0]} failed: {ran.stderr.strip() or ran.returncode}")
    return ran.stdout


def note(run: Path, job: str) -> None:
    """Record a submission in the run."""
    attempts = Run(run).record.get("attempts", [])
    with (run / FILE).open("a") as file:
        file.write(json.dumps({"job": job, "submitted": now(), "attempt": len(attempts) + 1}) + "\n")


def noted(run: Path) -> list[str]:
    """Return the jobs of a run, oldest first: those of its attempts and those submitted."""
    file = run / FILE
    lines = file.read_text().splitlines() if file.exists() else []
    known = Run(run).record
    own = known.get("attempts", [])[known.get("copied_from", {}).get("attempts", 0) :]
    attempts = [attempt.get("slurm_job") for attempt in own]
    return list(dict.fromkeys([*(job for job in attempts if job), *(json.loads(line)["job"] for line in lines)]))


def queue() -> dict[str, Queued]:
    """Return the user's pending and running jobs by id; elements of an array by both ids (12_3, and the job's own)."""
    rows = run_slurm_command("squeue", "--me", "--noheader", "--array", f"--format={WORDS}|%A").splitlines()
    found: dict[str, Queued] = {}
    for row in rows:
        *words, number = row.split("|")
        found[words[0]] = found[number] = Queued(*words)
    return found


def live(run: Path, queued: dict[str, Queued]) -> Queued | None:
    """Return the pending or running job of a run."""
    return next((queued[job] for job in reversed(noted(run)) if job in queued), None)


def submitted(name: str) -> Path:
    """Return the directory of a run, which may not have started yet.

    Raises:
        CheckpointError: the run does not exist.
    """
    path = directory_of(name)
    return path if (path / FILE).is_file() else find_run(name)


def logs_of(run: Path) -> list[Path]:
    """Return the logs of a run's jobs, the latest last, from its directory or beside it."""
    beside = (run.parent / f"slurm-{job}.out" for job in noted(run))
    return sorted([*run.glob("slurm-*.out"), *(file for file in beside if file.is_file())], key=os.path.getmtime)


def log_of(run: Path) -> Path:
    """Return the log of a run's latest job.

    Raises:
        CheckpointError: none of its jobs has started yet.
    """
    if not (found := logs_of(run)):
        raise CheckpointError(f"run {run.name} has no log: it is pending, or was not submitted by `unroll submit`")
    return found[-1]
