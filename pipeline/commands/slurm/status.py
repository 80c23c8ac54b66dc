"""`unroll status [RUN...]`: print the state of runs in the queue and in training, and their attempts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from pipeline.arguments import Parser
from pipeline.commands.slurm import queue
from pipeline.commands.slurm.profile import clock
from pipeline.errors import ConfigError
from pipeline.runs.journal import FILE, Journal, read_journal
from pipeline.runs.record import RECORD
from pipeline.runs.run import RUNS, Run

COLUMNS = ("run", "queue", "step", "loss", "tokens/s", "time left", "attempts", "productive")
NONE = "-"


class AttemptEntry(TypedDict):
    """An attempt in run.json, as far as it is used here."""

    number: int
    started: str
    ended: str | None
    reason: str | None
    start_step: int
    host: str
    world_size: int
    slurm_job: str | None


def main(argv: list[str]) -> int:
    """Print a table; for named runs, also their attempts.

    Raises:
        CheckpointError: a run does not exist.
    """
    parser = Parser(prog="unroll status", description=__doc__)
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="names of runs under runs/, or their paths (default: all runs)"
    )
    names = parser.parse_args(argv).runs
    files = (path for name in (RECORD, queue.FILE) for path in RUNS.glob(f"*/{name}"))
    runs = [queue.submitted(name) for name in names] or sorted({path.parent for path in files})
    try:
        queued = queue.queue()
    except ConfigError:  # without Slurm, the runs themselves are still shown
        queued = {}
    rows = [COLUMNS, *(row(run, queue.live(run, queued)) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for each in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip())
    for run in runs if names else []:
        print(*lines(run), sep="\n")
    return 0


def row(run: Path, job: queue.Queued | None) -> tuple[str, ...]:
    """Return the cells of a run, in the order of COLUMNS."""
    journal = read_journal(run) if (run / FILE).exists() else Journal()
    attempts = Run(run).record.get("attempts", [])
    series = journal.series("train/loss")
    loss, rate = journal.last("train/loss"), journal.last("train/tokens_per_second")
    return (
        run.name,
        queue_state(job, attempts),
        f"{series.steps[-1]}" if series.steps else NONE,
        NONE if loss is None else f"{loss:.4f}",
        NONE if rate is None else f"{rate:,.0f}",
        NONE if attempts and attempts[-1]["reason"] == "finished" else time_left(run, journal),
        f"{len(attempts)}",
        productive(journal, attempts, datetime.now(UTC)),
    )


def queue_state(job: queue.Queued | None, attempts: list[AttemptEntry]) -> str:
    """Return the state of a run's job; without a job, how its last attempt ended."""
    if job is None:
        return (attempts[-1]["reason"] or "running or killed").split(":")[0] if attempts else "not in the queue"
    if job.state == "RUNNING":
        return f"{job.job} running on {job.nodes}, {job.left} left"
    return f"{job.job} {job.state.lower()} ({job.reason})"


def time_left(run: Path, journal: Journal) -> str:
    """Return the estimated training time to the last step: H:MM:SS."""
    last = Run(run).record.get("steps", 0)
    series = journal.series("train/loss")
    if last < 1 or not series.steps or not series.steps[-1]:
        return NONE
    return clock(max(0, last - series.steps[-1]) * series.seconds[-1] / series.steps[-1])


def productive(journal: Journal, attempts: list[AttemptEntry], now: datetime) -> str:
    """Return the share of training time without repeated steps in the total duration of all attempts."""
    begun = [datetime.fromisoformat(attempt["started"]) for attempt in attempts]
    followed = [*begun, now][1:]  # a killed attempt has no end time: the next start is used
    ended = [
        datetime.fromisoformat(attempt["ended"]) if attempt["ended"] else later
        for attempt, later in zip(attempts, followed, strict=True)
    ]
    held = sum((end - start).total_seconds() for start, end in zip(begun, ended, strict=True))
    trained = journal.series("train/loss").seconds
    return f"{min(1.0, trained[-1] / held):.0%}" if trained and held else NONE


def lines(run: Path) -> list[str]:
    """Return a line per attempt."""
    return [
        f"  {run.name}, attempt {each['number']}: job {each['slurm_job'] or NONE} on {each['host']}, "
        f"{each['world_size']} processes, from step {each['start_step']}, {each['started']} to "
        f"{each['ended'] or NONE}: {each['reason'] or 'running or killed'}"
        for each in Run(run).record.get("attempts", [])
    ]
