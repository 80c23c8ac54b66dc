"""The journal of a run: an append-only file with one JSON record per line, which stays readable after any crash.

A line is written by a single system call, so a killed process leaves at most one torn line, the last. When a run
resumes from an earlier checkpoint nothing is erased. The new attempt records its first step, and the reader drops
what older attempts wrote beyond it.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

from pipeline.runs.moved import update_row

FILE = "journal.jsonl"
# the fields of every record; all other fields of a record of kind metrics are measurements
CLOCK = ("kind", "attempt", "step", "tokens", "seconds", "time")
# other kinds: a published checkpoint or model, histograms of gradients, a diagnosis of memory, pictures
EVENTS = ("checkpoint", "model", "gradients", "diagnosis", "pictures")
# strict JSON cannot represent these numbers, so they are written as strings
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JournalWriter:
    """A writer that appends records to the journal of a run.

    Args:
        run: directory of the run; created if it does not exist.
    """

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / FILE
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = not ends_with_newline(self._file)

    def attempt(self, number: int, step: int, tokens: int = 0, seconds: int | float = 0.0) -> None:
        """Record that attempt `number` starts after `step` steps, which invalidates rows of older ones beyond it."""
        self._append("attempt", number, step, tokens, seconds, {})

    def metrics(
        self, attempt: int, step: int, tokens: int, seconds: int | float, values: Mapping[str, SupportsFloat]
    ) -> None:
        """Write one row of measurements, such as `{"val/loss": 1.2}` (nats per token).

        Raises:
            OSError: the row could not be written (disk full). The next record starts on a new line.
        """
        measured = {key: plain(value) for key, value in values.items() if key not in CLOCK}
        self._append("metrics", attempt, step, tokens, seconds, measured)

    def samples(
        self, attempt: int, step: int, tokens: int, seconds: int | float, samples: Iterable[Mapping[str, str]]
    ) -> None:
        """Write generated texts, each `{"prompt": ..., "text": ...}`; raises the errors of `metrics`."""
        self._append("samples", attempt, step, tokens, seconds, {"samples": [dict(one) for one in samples]})

    def fault(self, attempt: int, step: int, tokens: int, seconds: int | float, fields: Mapping[str, object]) -> None:
        """Write a fault of a step, such as `{"fault": "step_skipped", "ids": [3, 7]}`; raises as `metrics`."""
        values = {key: plain(value) if isinstance(value, float) else value for key, value in fields.items()}
        self._append("fault", attempt, step, tokens, seconds, values)

    def event(
        self, kind: str, attempt: int, step: int, tokens: int, seconds: int | float, fields: Mapping[str, object]
    ) -> None:
        """Write a record of a kind in EVENTS, whose fields must be strict JSON; raises as `metrics`."""
        assert kind in EVENTS
        self._append(kind, attempt, step, tokens, seconds, fields)

    def close(self) -> None:
        """Flush the records to disk and close the file."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
        self._file = -1

    def _append(
        self, kind: str, attempt: int, step: int, tokens: int, seconds: int | float, fields: Mapping[str, object]
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        clock = zip(CLOCK, (kind, attempt, step, tokens, plain(seconds), now), strict=True)
        text = json.dumps({**dict(clock), **fields}, allow_nan=False)
        line = ("\n" * self._torn + text + "\n").encode("ascii")
        self._torn = True  # until the whole line is written
        written = os.write(self._file, line)
        if written < len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes of a record were written")
        self._torn = False


def ends_with_newline(file: int) -> bool:
    """Return whether the file is empty or its last line is complete."""
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


def plain(value: SupportsFloat) -> int | float | str:
    """Convert a number or a scalar tensor to strict JSON, in which NaN and the infinities become strings."""
    number = value if isinstance(value, (int, float)) else float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


class MetricSeries(NamedTuple):
    """One measured quantity over the course of training: columns of equal length, with strictly increasing steps."""

    steps: list[int]  # optimizer steps
    tokens: list[int]  # training tokens consumed
    seconds: list[float]  # training time, summed over attempts
    values: list[float]


@dataclass(frozen=True)
class Journal:
    """The valid records of a journal, without those that a later attempt replaced.

    Args:
        rows: valid records of kind metrics, samples and fault, by step; records of one step in the order of writing.
        attempts: start step of each attempt, by its number.
        torn: number of lines that could not be read.
        superseded: number of rows that a later attempt replaced.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    torn: int = 0
    superseded: int = 0

    def series(self, key: str) -> MetricSeries:
        """Return the measurements of `key` ("val/perplexity"); of several rows of one step, the last."""
        rows = {row["step"]: row for row in self._metrics() if isinstance(row.get(key), (int, float))}
        fields = ("step", "tokens", "seconds", key)
        return MetricSeries(*([row[field] for row in rows.values()] for field in fields))

    def keys(self) -> list[str]:
        """Return the names of all measured quantities, in alphabetical order."""
        return sorted({key for row in self._metrics() for key in row}.difference(CLOCK))

    def samples(self) -> list[dict[str, Any]]:
        """Return the records of generated texts by step; of several in one step, the last written."""
        return list({row["step"]: row for row in self.rows if row["kind"] == "samples"}.values())

    def faults(self) -> list[dict[str, Any]]:
        """Return the records of faults, by step."""
        return [row for row in self.rows if row["kind"] == "fault"]

    def last(self, key: str) -> int | float | None:
        """Return the newest value of `key`, or None if it was never measured."""
        return next(reversed(self.series(key).values), None)

    def best(self, key: str, mode: Callable[[list[float]], float] = min) -> int | float | None:
        """Return the smallest finite value of `key`, or the largest with `mode=max`, or None without one."""
        finite = [value for value in self.series(key).values if math.isfinite(value)]
        return mode(finite) if finite else None

    def _metrics(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "metrics"]


def read_journal(run: Path) -> Journal:
    """Read the journal of the run directory `run`, skipping and counting invalid lines.

    Raises:
        OSError: the journal is missing or cannot be read.
    """
    rows, attempts, torn = [], {}, 0
    with open(run / FILE, "rb") as lines:
        for line in lines:
            record = parse_line(line)
            if record is None:
                torn += line.strip() != b""
            elif record["kind"] == "attempt":
                attempts[record["attempt"]] = record["step"]
            elif record["kind"] not in EVENTS:
                rows.append(record)
    for row in rows:  # an attempt whose own record is lost starts before its first row
        attempts.setdefault(row["attempt"], row["step"] - 1)
    limits = {number: horizon(number, attempts) for number in attempts}
    counted = [row for row in rows if row["step"] <= limits[row["attempt"]]]
    # of two rows of one step the later attempt's comes last, even if an old process wrote after a new one
    counted.sort(key=lambda row: (row["step"], row["attempt"]))
    return Journal(counted, attempts, torn, len(rows) - len(counted))


def last_saved(run: Path) -> str | None:
    """Return the path of the last checkpoint that a journal records, below the run's directory; None without one."""
    try:
        with open(run / FILE, "rb") as lines:
            saved = [row["path"] for line in lines if (row := parse_line(line)) and row["kind"] == "checkpoint"]
    except OSError:
        return None
    return saved[-1] if saved else None


def horizon(number: int, attempts: Mapping[int, int]) -> int | float:
    """Return the last valid step of attempt `number`: the smallest start step of all later attempts."""
    return min((step for later, step in attempts.items() if later > number), default=math.inf)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Parse a line, with infinities and NaN as floats again; return None if it is not a complete record."""
    try:
        record = json.loads(line)
        clock = [record[key] for key in ("attempt", "step", "tokens", "seconds")]
    except (ValueError, KeyError, TypeError):
        return None
    if record.get("kind") not in ("attempt", "metrics", "samples", "fault", *EVENTS):
        return None
    if not all(type(value) in (int, float) for value in clock):
        return None
    finite = {key: NOT_FINITE[value] if is_not_finite(value) else value for key, value in record.items()}
    return update_row(finite)


def is_not_finite(value: object) -> bool:
    """Return whether a field represents a number that strict JSON cannot."""
    return isinstance(value, str) and value in NOT_FINITE
