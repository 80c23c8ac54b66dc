"""`unroll status [RUN...]`: print the state of runs in the queue and in training, and their attempts."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from pipeline.arguments import Parser
from pipeline.commands.slurm import queue
from pipeline.commands.slurm.profile import clock
from pipeline.dataset.unit import Unit
from pipeline.errors import ConfigError
from pipeline.runs.journal import FILE, Journal, read_journal
from pipeline.runs.record import RECORD
from pipeline.runs.run import RUNS, Run, name_of

COLUMNS = ("run", "queue", "step", "loss", "speed", "time left", "attempts", "productive")
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
    runs = [queue.submitted(name) for name in names] or runs_here()
    try:
        queued = queue.queue()
    except ConfigError:  # without Slurm, the runs themselves are still shown
        queued = {}
    rows = [COLUMNS, *preparations(runs, queued), *(row(run, queue.live(run, queued)) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for each in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip())
    below = (line for run in runs for line in (*(lines(run) if names else []), *endings(run, queued, bool(names))))
    for line in dict.fromkeys(below):  # the runs of an array share a preparation
        print(line)
    return 0


def runs_here() -> list[Path]:
    """Return the runs below RUNS, those of tournaments included."""
    files = (path for name in (RECORD, queue.FILE) for depth in ("*", "*/*") for path in RUNS.glob(f"{depth}/{name}"))
    found = {path.parent for path in files}
    return sorted(run for run in found if run.parent not in found)


def preparations(runs: list[Path], queued: dict[str, queue.Queued]) -> list[tuple[str, ...]]:
    """Return a row for each preparation that runs wait for; the runs of an array share one."""
    logs = dict.fromkeys(log for run in runs if (log := queue.preparation(run)))
    states = (
        queue_state(queued.get(queue.job_of(log)), "ended" if log.is_file() else "not in the queue") for log in logs
    )
    return [(log.stem, state, *([NONE] * (len(COLUMNS) - 2))) for log, state in zip(logs, states, strict=True)]


def endings(run: Path, queued: dict[str, queue.Queued], named: bool) -> list[str]:
    """Return a line per job that has ended although its run has not finished, with the last line of its log.

    Args:
        run: directory of the run.
        queued: the jobs in the queue.
        named: whether the run is named on the command line; else only jobs without an attempt are shown.
    """
    attempts, prepared = Run(run).record.get("attempts", []), queue.preparation(run)
    finished = bool(attempts) and attempts[-1]["reason"] == "finished"
    over = queue.live(run, queued) is None and not finished and (named or bool(queue.waiting(run)))
    logs = [prepared] if prepared and prepared.is_file() and queue.job_of(prepared) not in queued else []
    logs += queue.logs_of(run, queue.noted(run)[-1:]) if over else []
    return [f"  {log}: {queue.ending(log)}" for log in logs]


def row(run: Path, job: queue.Queued | None) -> tuple[str, ...]:
    """Return the cells of a run, in the order of COLUMNS."""
    journal = read_journal(run) if (run / FILE).exists() else Journal()
    record = Run(run).record
    attempts = record.get("attempts", [])
    rate = speed(journal)
    return (
        name_of(run),
        queue_state(job, how_it_ended(run, attempts)),
        newest_step(run, journal),
        last_loss(journal),
        NONE if rate is None else Unit.of_record(record).rate(rate),
        NONE if attempts and attempts[-1]["reason"] == "finished" else time_left(record, journal),
        f"{len(attempts)}",
        productive(journal, attempts, datetime.now(UTC)),
    )


def newest(journal: Journal) -> dict[str, Any]:
    """Return the newest metrics; a run shorter than `log_every_n_steps` has those of a validation, or none."""
    return next((row for row in reversed(journal.rows) if row["kind"] == "metrics"), {})


def newest_step(run: Path, journal: Journal) -> str:
    """Return the last step in the journal, or that of the newest checkpoint of a run without metrics."""
    names = (path.name.removeprefix("step-") for path in run.glob("checkpoints/step-*"))
    steps = [newest(journal).get("step", 0)] if newest(journal) else [int(name) for name in names if name.isdigit()]
    return f"{max(steps)}" if steps else NONE


def last_loss(journal: Journal) -> str:
    """Return the newest training loss, or the loss of the last validation of a run without one."""
    if (loss := journal.last("train/loss")) is not None:
        return f"{loss:.4f}"
    held_out = journal.last("val/loss")
    return NONE if held_out is None else f"{held_out:.4f} (validation)"


def speed(journal: Journal) -> float | None:
    """Return the newest speed in predictions per second, or the mean of a run without one."""
    last = newest(journal)
    mean = last["tokens"] / last["seconds"] if last.get("tokens") and last.get("seconds") else None
    return found if (found := journal.last("train/tokens_per_second")) is not None else mean


def queue_state(job: queue.Queued | None, otherwise: str) -> str:
    """Return the state of a job in the queue, or `otherwise` without one."""
    if job is None:
        return otherwise
    if job.state == "RUNNING":
        return f"{job.job} running on {job.nodes}, {job.left} left"
    return f"{job.job} {job.state.lower()} ({job.reason})"


def how_it_ended(run: Path, attempts: list[AttemptEntry]) -> str:
    """Return how the last job of a run ended, or its last attempt."""
    if submission := queue.waiting(run):
        return "ended before training" if queue.logs_of(run, [submission["job"]]) else "not in the queue"
    return (attempts[-1]["reason"] or "running or killed").split(":")[0] if attempts else "not in the queue"


def time_left(record: dict[str, Any], journal: Journal) -> str:
    """Return the estimated training time to the last step: H:MM:SS."""
    steps, last = record.get("steps", 0), newest(journal)
    if steps < 1 or not last.get("step"):
        return NONE
    return clock(max(0, steps - last["step"]) * last["seconds"] / last["step"])


def productive(journal: Journal, attempts: list[AttemptEntry], now: datetime) -> str:
    """Return the share of training time without repeated steps in the total duration of all attempts."""
    begun = [datetime.fromisoformat(attempt["started"]) for attempt in attempts]
    followed = [*begun, now][1:]  # a killed attempt has no end time: the next start is used
    ended = [
        datetime.fromisoformat(attempt["ended"]) if attempt["ended"] else later
        for attempt, later in zip(attempts, followed, strict=True)
    ]
    held = sum((end - start).total_seconds() for start, end in zip(begun, ended, strict=True))
    trained = newest(journal).get("seconds")
    return f"{min(1.0, trained / held):.0%}" if trained and held else NONE


def lines(run: Path) -> list[str]:
    """Return a line per attempt, and what the speed depends on."""
    attempts = [
        f"  {name_of(run)}, attempt {each['number']}: job {each['slurm_job'] or NONE} on {each['host']}, "
        f"{each['world_size']} processes, from step {each['start_step']}, {each['started']} to "
        f"{each['ended'] or NONE}: {each['reason'] or 'running or killed'}"
        for each in Run(run).record.get("attempts", [])
    ]
    return attempts + speed_lines(Run(run).record)


def speed_lines(record: dict[str, Any]) -> list[str]:
    """Return a line of the kernels of a run, and one of the peak of its device, as far as they are recorded."""
    kernels, speed = record.get("kernels"), record.get("speed")
    found = [f"  kernels: {', '.join(f'{name} ({times})' for name, times in kernels.items())}"] if kernels else []
    if speed:
        flops = speed["flops_per_prediction"]
        counted = f", {flops:,.0f} FLOPs per prediction" if flops else ""
        peak = f"peak {speed['peak'] / 1e12:.3g} TFLOP/s ({speed['peak_source']})"
        found.append(f"  device: {speed['device']}, {speed['precision']}, {peak}{counted}")
    return found
