"""Progress of a preparation, and its final report of records read, skipped and rejected."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.errors import DataError, one_line

NAMED = 20  # records that the report names for each reason
REASONS = 5  # reasons in an error
LONGEST = 200  # characters of a name with its detail
COUNTERS = ("bad", "noted", "left_out")
PRINT_EVERY = 10.0  # seconds between two lines of progress without a terminal
UPDATE_EVERY = 0.2  # seconds between two updates of the progress bar
T = TypeVar("T")


@dataclass
class Report:
    """Counts of one pass over the sources: documents read, empty ones, and invalid or unusual ones with their names.

    A reason is a constant text, so that records are grouped by it. What differs from record to record, such as a
    value or a library's message, is a detail, which is shown beside the name of a record.

    Args:
        kind: name of the records, in the plural.
        documents: number of records read.
        empty: number of empty records, which are skipped.
        bad: number of invalid records, which are skipped, by reason.
        noted: number of unusual but valid records, by reason.
        left_out: number of files, columns or records that are not read on purpose, by reason.
        names: the first records of each reason.
    """

    kind: str = "documents"
    documents: int = 0
    empty: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, name: str, reason: str, detail: str = "") -> None:
        """Count an invalid record and store its name if it is among the first of its reason."""
        self._count(self.bad, name, reason, detail)

    def note(self, name: str, reason: str, detail: str = "") -> None:
        """Count an unusual but valid record and store its name if it is among the first of its reason."""
        self._count(self.noted, name, reason, detail)

    def leave_out(self, name: str, reason: str, detail: str = "") -> None:
        """Count something that is not read on purpose, such as a hidden file or an unused column."""
        self._count(self.left_out, name, reason, detail)

    def _count(self, counts: Counter[str], name: str, reason: str, detail: str) -> None:
        counts[reason] += 1
        if counts[reason] <= NAMED:
            shown = f"{name} ({' '.join(detail.split())})" if detail else name
            self.names.setdefault(reason, []).append(one_line(shown, LONGEST))

    def check(self, max_bad_share: float) -> None:
        """Check the fraction of invalid records.

        Raises:
            DataError: the fraction is above `max_bad_share`.
        """
        bad, records = self.bad.total(), self.documents + self.empty + self.bad.total()
        if bad <= max_bad_share * records:
            return
        common = self.bad.most_common(REASONS)
        reasons = "; ".join(f"{reason}: {n}, first {self.names[reason][0]}" for reason, n in common)
        reasons += "; ..." if len(self.bad) > REASONS else ""
        raise DataError(
            f"--max-bad-share={max_bad_share:g}: {bad} of {records} {self.kind} are invalid ({reasons}). "
            "Fix them or allow a larger share"
        )

    def add(self, other: "Report") -> None:
        """Add the counts of another report."""
        self.documents += other.documents
        self.empty += other.empty
        self.bad += other.bad
        self.noted += other.noted
        self.left_out += other.left_out
        for reason, names in other.names.items():
            self.names[reason] = [*self.names.get(reason, []), *names][:NAMED]

    def to_state(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values for `from_state`."""
        return {**vars(self), **{name: dict(vars(self)[name]) for name in COUNTERS}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Report":
        """Return the report that `to_state` converted."""
        return cls(**{**state, **{name: Counter(state[name]) for name in COUNTERS}})

    def as_json(self) -> dict[str, object]:
        """Return the content of `report.json`."""
        bad, noted, left_out = (
            {reason: {"count": n, "first": self.names[reason]} for reason, n in sorted(counts.items())}
            for counts in (self.bad, self.noted, self.left_out)
        )
        found: dict[str, object] = {f"{self.kind}_read": self.documents, "empty_skipped": self.empty, "bad": bad}
        return found | {name: group for name, group in (("noted", noted), ("left_out", left_out)) if group}

    def lines(self) -> Iterator[str]:
        """Return the lines of the report that are printed."""
        yield f"read {self.documents:,} {self.kind}, skipped {self.empty:,} empty, {self.bad.total():,} invalid"
        for reason, count in [*self.bad.most_common(), *self.noted.most_common()]:
            yield f"  {count:,} x {reason}: {', '.join(self.names[reason][:3])}{' ...' if count > 3 else ''}"
        if self.left_out:
            reasons = (f"{count:,} x {reason} ({self.names[reason][0]})" for reason, count in self.left_out.items())
            yield f"left out {self.left_out.total():,}: {', '.join(reasons)}"


def progress(
    items: Iterable[T], doing: str, total: int, done: Callable[[], int], unit: tuple[str, float] = ("MB", 1e6)
) -> Iterator[T]:
    """Yield the items while showing the progress: as a bar on a terminal, else as a line every few seconds.

    Args:
        items: the work.
        doing: description before the bar.
        total: size of the work, such as the bytes of the sources.
        done: returns the size of the finished work.
        unit: name of the unit of speed, and its size.
    """
    return (_bar if sys.stderr.isatty() else _printed)(items, doing, total, done, unit)


def _bar(items: Iterable[T], doing: str, total: int, done: Callable[[], int], unit: tuple[str, float]) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    began = time.monotonic()

    def rate(finished: int) -> str:
        return f"{finished / max(time.monotonic() - began, 1e-9) / unit[1]:.1f} {unit[0]}/s"

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total, rate="")
        yield from _with_updates(items, UPDATE_EVERY, lambda: bar.update(task, completed=done(), rate=rate(done())))
        bar.update(task, completed=total, rate=rate(total))


def _printed(
    items: Iterable[T], doing: str, total: int, done: Callable[[], int], unit: tuple[str, float]
) -> Iterator[T]:
    began = time.monotonic()

    def print_line() -> None:
        rate = done() / (time.monotonic() - began)
        left = (total - done()) / rate if rate else float("inf")
        share = done() / max(total, 1)
        print(f"{doing}: {share:.0%}, {rate / unit[1]:.1f} {unit[0]}/s, {left:.0f} s left", file=sys.stderr, flush=True)

    return _with_updates(items, PRINT_EVERY, print_line)


def _with_updates(items: Iterable[T], seconds: float, update: Callable[[], None]) -> Iterator[T]:
    last = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - last >= seconds:
            update()
            last = time.monotonic()
