"""The Slurm jobs of a run, and their state in the queue.

runs/NAME/jobs.jsonl    one line per submission: job, time, number of the attempt
          job.sbatch    the last submitted script
          slurm-*.out   the log of each job; for arrays of named runs, beside the run
runs/prepare-NAME-*.out the log of each job that prepares a dataset
"""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from pipeline.errors import CheckpointError, ConfigError
from pipeline.runs.run import Run, directory_of, find_run, now

FILE = "jobs.jsonl"
OF_JOBS, KEPT = re.compile("SLURM|SBATCH_|SALLOC_|SRUN_"), ("SLURM_CONF", "SLURM_JWT")
# those of torchrun, of Lightning and of jobs with GPUs; train.sbatch has the same ones
OF_LAUNCHERS = re.compile(
    "((LOCAL|NODE|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|TORCHELASTIC_.*|CUDA_VISIBLE_DEVICES"
)
START, OF_SLURM = re.compile(r"\w+\.sbatch: start "), re.compile(r"srun:|slurmstepd\S*:|\w+\.sbatch:")  # lines of a log
WORDS = "%i|%T|%r|%L|%N"  # of squeue: id, state, reason, time left, nodes


class Submission(TypedDict):
    """A line of jobs.jsonl."""

    job: str
    submitted: str
    attempt: int
    preparation: str | None


class Queued(NamedTuple):
    """A job in the queue, as printed by squeue."""

    job: str
    state: str
    reason: str
    left: str
    nodes: str


def leave_outer_job() -> None:
    """Remove from the environment what a job or a launcher around this process has set.

    The config would be checked for the processes of that launcher; sbatch would take the variables for options.
    """
    inside = "SLURM_JOB_ID" in os.environ
    for name in list(os.environ):
        if OF_LAUNCHERS.fullmatch(name) or (inside and OF_JOBS.match(name) and name not in KEPT):
            del os.environ[name]


def run_slurm_command(*command: str, stdin: str | None = None) -> str:
    """Run a command of Slurm and return its output.

    Args:
        command: the command and its arguments.
        stdin: standard input.

    Raises:
        ConfigError: the command is not installed, or fails.
    """
    try:
        ran = subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} not found. Run this command on a node of a Slurm cluster") from None
    if ran.returncode:
        raise ConfigError(f"{command[0]} failed: {ran.stderr.strip() or ran.returncode}")
    return ran.stdout


def note(run: Path, job: str, preparation: str | None = None) -> None:
    """Record a submission in the run.

    Args:
        run: directory of the run.
        job: id of the job.
        preparation: name and id of the job that prepares its dataset: `prepare-NAME-ID`.
    """
    attempts = Run(run).record.get("attempts", [])
    entry: Submission = {
        "job": job,
        "submitted": now(),
        "attempt": len(attempts) + 1,
        "preparation": preparation,
    }
    with (run / FILE).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def submissions(run: Path) -> list[Submission]:
    """Return the submissions of a run, oldest first."""
    file = run / FILE
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def waiting(run: Path) -> Submission | None:
    """Return the last submission of a run if no attempt has begun since; else None."""
    begun = len(Run(run).record.get("attempts", []))
    return next((each for each in submissions(run)[-1:] if each["attempt"] > begun), None)


def preparation(run: Path) -> Path | None:
    """Return the log of the job that prepares the dataset of a run in which no attempt has begun yet; else None."""
    submission = waiting(run)
    name = submission and submission.get("preparation")
    return run.parent / f"{name}.out" if name else None


def job_of(preparation: Path) -> str:
    """Return the job that writes the log of a preparation."""
    return preparation.stem.rpartition("-")[2]


def noted(run: Path) -> list[str]:
    """Return the jobs of a run, oldest first: those of its attempts and those submitted."""
    known = Run(run).record
    own = known.get("attempts", [])[known.get("copied_from", {}).get("attempts", 0) :]
    attempts = [attempt.get("slurm_job") for attempt in own]
    return list(dict.fromkeys([*(job for job in attempts if job), *(each["job"] for each in submissions(run))]))


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


def logs_of(run: Path, jobs: Sequence[str] = ("*",)) -> list[Path]:
    """Return the logs of a run's jobs, the latest last, from its directory or beside it."""
    inside = (file for job in jobs for file in run.glob(f"slurm-{job}.out"))
    beside = (run.parent / f"slurm-{job}.out" for job in (noted(run) if "*" in jobs else jobs))
    return sorted([*inside, *(file for file in beside if file.is_file())], key=os.path.getmtime)


def log_of(run: Path) -> Path:
    """Return the log of a run's latest job.

    Raises:
        CheckpointError: none of its jobs has started yet.
    """
    if not (found := logs_of(run)):
        raise CheckpointError(f"run {run.name} has no log: it is pending, or was not submitted by `unroll submit`")
    return found[-1]


def ending(log: Path) -> str:
    """Return how the last start of a job ended: the last line of its command, and that of its batch script."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    begun = max((k for k, line in enumerate(lines) if START.match(line)), default=-1)
    last = lines[begun + 1 :] or lines
    commands = [line for line in last if not OF_SLURM.match(line)]
    return "; ".join(dict.fromkeys([*commands[-1:], *last[-1:]]))
