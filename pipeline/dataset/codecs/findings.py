"""Problems of a table of series, counted by kind with the first places of each."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from pipeline.errors import DataError

NAMED = 5  # places that are reported for each finding
LONGEST = 80  # characters of a place
# what can be wrong, and how to fix it
UNREADABLE = (
    "unreadable stamp",
    "write 2016-07-01 13:00, with its offset +02:00 where clocks change, 2016-07 or an integer, or prepare with "
    "--time-format PATTERN, such as %d/%m/%Y %H:%M",
)
NAMELESS = "row without an id", "fill the columns of --id"
TWICE = (
    "stamp that a series has twice",
    "keep one row of each, name the series of each row with --id, or give --time-zone AREA/CITY where clocks change",
)
BETWEEN = "stamp between the steps of the grid", "resample the rows to one step"
NOT_NUMBER = "text in a column of numbers", "correct it, write NA where a value is missing, or --drop the column"
SEPARATED = (
    "number with separators",
    "prepare with --decimal comma for 1.234,56 or --decimal point for 1,234.56, and delete other signs",
)
INFINITE = "infinite value", "correct or delete it"
MISSING = (
    "step without a value",
    "add the value, or prepare with --fill-gaps; give --time-zone AREA/CITY where clocks change",
)
UNKNOWN = "known covariate without a value", "add it at every step, or --drop it"
Finding = tuple[str, str]
T = TypeVar("T")


@dataclass
class Findings:
    """Problems of a table: the count and the first places of each kind."""

    counts: Counter[Finding] = field(default_factory=Counter)
    places: dict[Finding, list[str]] = field(default_factory=dict)

    def add(self, finding: Finding, place: str, count: int = 1) -> None:
        """Count a finding at a place."""
        self.counts[finding] += count
        named = self.places.setdefault(finding, [])
        if len(named) < NAMED:
            named.append(place if len(place) <= LONGEST else f"{place[:LONGEST]}...")

    def add_all(self, finding: Finding, found: Iterable[T], place: Callable[[T], str]) -> None:
        """Count a finding at several places, of which only the first are described."""
        rest = iter(found)
        for each in islice(rest, NAMED):
            self.add(finding, place(each))
        if more := sum(1 for _ in rest):
            self.counts[finding] += more

    def refuse(self, source: str, accepted: tuple[Finding, ...] = ()) -> None:
        """Raise an error if there are findings that are not accepted.

        Raises:
            DataError: lists all findings.
        """
        lines = [self._line(finding) for finding in self.counts if finding not in accepted]
        if lines:
            raise DataError(f"{source} cannot be used: {'; '.join(lines)}")

    def refuse_texts(self, source: str) -> None:
        """Raise an error if there are values that are not numbers, of which missing steps are only a consequence.

        Raises:
            DataError: lists all findings.
        """
        if {NOT_NUMBER, SEPARATED} & self.counts.keys():
            self.refuse(source)

    def as_json(self) -> dict[str, Any]:
        """Return the findings as stored in `report.json`."""
        return {what[0]: {"count": count, "first": self.places[what]} for what, count in self.counts.items()}

    def _line(self, finding: Finding) -> str:
        what, fix = finding
        named, count = self.places[finding], self.counts[finding]
        more = ", ..." if count > len(named) and len(named) == NAMED else ""
        return f"{count} x {what} ({', '.join(named)}{more}): {fix}"
