"""What a preparation tells its user: how far it is, and at the end what was read, skipped and why."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pipeline.errors import DataError

NAMED = 20  # bad records that the report names, for each reason
SAY_EVERY = 10.0  # seconds between two lines of progress where there is no terminal
LOOK_EVERY = 0.2  # seconds between two looks at the position
T = TypeVar("T")


@dataclass
class Report:
    """Counts of one pass over the sources: documents read, empty ones, and bad or strange ones with their names."""

    kind: str = "documents"
    documents: int = 0
    empty: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, name: str, reason: str) -> None:
        """Count a bad record and remember the first few by name."""
        self.bad[reason] += 1
        self._remember(name, reason, self.bad[reason])

    def note(self, name: str, reason: str) -> None:
        """Count a record that is strange, but not bad, and remember the first few by name."""
        self.noted[reason] += 1
        self._remember(name, reason, self.noted[reason])

    def _remember(self, name: str, reason: str, count: int) -> None:
        if count <= NAMED:
            self.names.setdefault(reason, []).append(name)

    def check(self, max_bad_share: float) -> None:
        """Fail where too many records are bad.

        Raises:
            DataError: the share of bad records is above `max_bad_share`.
        """
        bad, records = self.bad.total(), self.documents + self.empty + self.bad.total()
        if bad <= max_bad_share * records:
            return
        reasons = "; ".join(f"{reason}: {n}, first {self.names[reason][0]}" for reason, n in self.bad.most_common())
        raise DataError(
            f"{bad} of {records} records are bad ({reasons}): above --max-bad-share {max_bad_share:g}; "
            "mend them or allow a larger share"
        )

    def add(self, other: "Report") -> None:
        """Count what another report has counted."""
        self.documents += other.documents
        self.empty += other.empty
        self.bad += other.bad
        self.noted += other.noted
        for reason, names in other.names.items():
            self.names[reason] = [*self.names.get(reason, []), *names][:NAMED]

    def kept(self) -> dict[str, Any]:
        """All of it as plain values, of which `recalled` makes it again."""
        return {**vars(self), "bad": dict(self.bad), "noted": dict(self.noted)}

    @classmethod
    def recalled(cls, kept: dict[str, Any]) -> "Report":
        """The report that was kept."""
        return cls(**{**kept, "bad": Counter(kept["bad"]), "noted": Counter(kept["noted"])})

    def as_json(self) -> dict[str, Any]:
        """The report as `report.json` holds it."""
        bad, noted = (
            {reason: {"count": n, "first": self.names[reason]} for reason, n in sorted(counts.items())}
            for counts in (self.bad, self.noted)
        )
        counts = {f"{self.kind}_read": self.documents, "empty_skipped": self.empty}
        return {**counts, "bad": bad, **({"noted": noted} if noted else {})}

    def lines(self) -> Iterator[str]:
        """The report as a user reads it."""
        yield f"read {self.documents:,} {self.kind}, skipped {self.empty:,} empty, {self.bad.total():,} bad"
        for reason, count in [*self.bad.most_common(), *self.noted.most_common()]:
            yield f"  {count:,} x {reason}: {', '.join(self.names[reason][:3])}{' ...' if count > 3 else ''}"


def progress(
    items: Iterable[T], doing: str, total: int, done: Callable[[], int], unit: tuple[str, float] = ("MB", 1e6)
) -> Iterator[T]:
    """Pass the items on while showing how far they are: a bar on a terminal, else a line now and then.

    Args:
        items: what is worked through.
        doing: what the user reads before the bar.
        total: bytes of the sources, or how many of something else.
        done: those read so far.
        unit: what speed is counted in.
    """
    return (_bar if sys.stderr.isatty() else _said)(items, doing, total, done, unit)


def _bar(items: Iterable[T], doing: str, total: int, done: Callable[[], int], unit: tuple[str, float]) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    began = time.monotonic()

    def rate(behind: int) -> str:
        return f"{behind / max(time.monotonic() - began, 1e-9) / unit[1]:.1f} {unit[0]}/s"

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total, rate="")
        yield from _now_and_then(items, LOOK_EVERY, lambda: bar.update(task, completed=done(), rate=rate(done())))
        bar.update(task, completed=total, rate=rate(total))


def _said(items: Iterable[T], doing: str, total: int, done: Callable[[], int], unit: tuple[str, float]) -> Iterator[T]:
    began = time.monotonic()

    def say() -> None:
        rate = done() / (time.monotonic() - began)
        left = (total - done()) / rate if rate else float("inf")
        share = done() / max(total, 1)
        print(f"{doing}: {share:.0%}, {rate / unit[1]:.1f} {unit[0]}/s, {left:.0f} s left", file=sys.stderr, flush=True)

    return _now_and_then(items, SAY_EVERY, say)


def _now_and_then(items: Iterable[T], seconds: float, act: Callable[[], None]) -> Iterator[T]:
    last = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - last >= seconds:
            act()
            last = time.monotonic()
