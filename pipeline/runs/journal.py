"""The journal is the run's own diary: one line a record, only ever appended to, readable whatever happened.

A line is one JSON object and is written by a single call of the operating system, so a kill leaves at most
one torn line, the last. When a run goes back to an earlier checkpoint nothing is erased: the new attempt says
at which step it starts, and the reader drops what older attempts wrote beyond that step.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.runs.moved import update_row

FILE = "journal.jsonl"
# the fields of every record; what else a record of kind metrics holds was measured
CLOCK = ("kind", "attempt", "step", "tokens", "seconds", "time")
# what else happened: a checkpoint or a model that was published, histograms of gradients, what is remembered, pictures
EVENTS = ("checkpoint", "model", "gradients", "diagnosis", "pictures")
# strict JSON has no such numbers: they are written as these strings
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JournalWriter:
    """Appends records to the journal of a run.

    Args:
        run: directory of the run; made if it is not there.
    """

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.path = run / FILE
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = not ends_with_newline(self._file)

    def attempt(self, number: int, step: int, tokens: int = 0, seconds: int | float = 0.0) -> None:
        """Say that attempt `number` starts after `step` steps: older rows beyond it count no longer."""
        self._append("attempt", number, step, tokens, seconds, {})

    def metrics(self, attempt: int, step: int, tokens: int, seconds: int | float, values: Mapping[str, Any]) -> None:
        """Write one row of measurements, such as `{"val/loss": 1.2}` (nats a token).

        Raises:
            OSError: the row could not be written (full disk); what was torn is closed off by the next record.
        """
        values = {key: plain(value) for key, value in values.items() if key not in CLOCK}
        self._append("metrics", attempt, step, tokens, seconds, values)

    def samples(
        self, attempt: int, step: int, tokens: int, seconds: int | float, samples: Iterable[Mapping[str, str]]
    ) -> None:
        """Write generated texts, each `{"prompt": ..., "text": ...}`; raises what `metrics` raises."""
        self._append("samples", attempt, step, tokens, seconds, {"samples": [dict(one) for one in samples]})

    def fault(self, attempt: int, step: int, tokens: int, seconds: int | float, fields: Mapping[str, Any]) -> None:
        """Write what went wrong in a step, such as `{"fault": "step_skipped", "ids": [3, 7]}`; raises as `metrics`."""
        values = {key: plain(value) if isinstance(value, float) else value for key, value in fields.items()}
        self._append("fault", attempt, step, tokens, seconds, values)

    def event(
        self, kind: str, attempt: int, step: int, tokens: int, seconds: int | float, fields: Mapping[str, Any]
    ) -> None:
        """Write a record of one of EVENTS, whose fields are strict JSON already; raises as `metrics`."""
        assert kind in EVENTS
        self._append(kind, attempt, step, tokens, seconds, fields)

    def close(self) -> None:
        """Hand the records to the disk and close the file."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
        self._file = -1

    def _append(
        self, kind: str, attempt: int, step: int, tokens: int, seconds: int | float, fields: Mapping[str, Any]
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        clock = zip(CLOCK, (kind, attempt, step, tokens, plain(seconds), now), strict=True)
        text = json.dumps({**dict(clock), **fields}, allow_nan=False)
        line = ("\n" * self._torn + text + "\n").encode("ascii")
        self._torn = True  # until the whole line is known to be out
        written = os.write(self._file, line)
        if written < len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes of a record were written")
        self._torn = False


def ends_with_newline(file: int) -> bool:
    """Whether the file is empty or its last line is whole."""
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


def plain(value: Any) -> Any:
    """A number (or a tensor of one) as strict JSON can hold it: NaN and the infinities become strings."""
    number = value if isinstance(value, (int, float)) else float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


class MetricSeries(NamedTuple):
    """One measured quantity as training goes: columns of equal length, steps strictly rising."""

    steps: list[int]  # optimizer steps
    tokens: list[int]  # training tokens consumed
    seconds: list[float]  # training time, summed over attempts
    values: list[float]


@dataclass(frozen=True)
class Journal:
    """What a journal says once the rewinds are taken into account.

    Args:
        rows: records of kind metrics, samples and fault that still count, by step; equal steps as they were written.
        attempts: start step of each attempt, by its number.
        torn: lines that could not be read.
        superseded: rows that a later attempt replaced.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[int, int] = field(default_factory=dict)
    torn: int = 0
    superseded: int = 0

    def series(self, key: str) -> MetricSeries:
        """The column `key` ("val/perplexity") against the clock; of two rows of one step the last counts."""
        rows = {row["step"]: row for row in self._metrics() if isinstance(row.get(key), (int, float))}
        fields = ("step", "tokens", "seconds", key)
        return MetricSeries(*([row[field] for row in rows.values()] for field in fields))

    def keys(self) -> list[str]:
        """Names of all measured quantities, in alphabetical order."""
        return sorted({key for row in self._metrics() for key in row}.difference(CLOCK))

    def samples(self) -> list[dict[str, Any]]:
        """Records of generated texts, one a step (the last written wins), in order of steps."""
        return list({row["step"]: row for row in self.rows if row["kind"] == "samples"}.values())

    def faults(self) -> list[dict[str, Any]]:
        """Records of what went wrong, in order of steps."""
        return [row for row in self.rows if row["kind"] == "fault"]

    def last(self, key: str) -> int | float | None:
        """The newest value of `key`; None where it was never measured."""
        return next(reversed(self.series(key).values), None)

    def best(self, key: str, mode: Callable[[list[float]], float] = min) -> int | float | None:
        """The smallest finite value of `key`, or with `mode=max` the largest; None where there is none."""
        finite = [value for value in self.series(key).values if math.isfinite(value)]
        return mode(finite) if finite else None

    def _metrics(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "metrics"]


def read_journal(run: Path) -> Journal:
    """Read the journal of the run directory `run`; lines that are no records are counted and skipped.

    Raises:
        OSError: there is no journal, or it cannot be read.
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
    for row in rows:  # an attempt whose head is lost starts before its first row
        attempts.setdefault(row["attempt"], row["step"] - 1)
    limits = {number: horizon(number, attempts) for number in attempts}
    counted = [row for row in rows if row["step"] <= limits[row["attempt"]]]
    # of two rows of one step the later attempt's stands last, even if an old process wrote after the new one
    counted.sort(key=lambda row: (row["step"], row["attempt"]))
    return Journal(counted, attempts, torn, len(rows) - len(counted))


def horizon(number: int, attempts: Mapping[int, int]) -> int | float:
    """The last step at which rows of attempt `number` count: where the earliest later attempt starts."""
    return min((step for later, step in attempts.items() if later > number), default=math.inf)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line, infinities and NaN as floats again; None if it is no whole record."""
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


def is_not_finite(value: Any) -> bool:
    """Whether a field stands for a number that JSON cannot hold."""
    return isinstance(value, str) and value in NOT_FINITE
