"""Read series on one time grid from a table of stamps and numbers, and report invalid rows.

In a wide table each column of numbers is a series; in a long table, id columns name the series of a row.

Legend: R rows of a table, L steps of a series, K known covariates.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from pipeline.dataset.codecs.table import column, is_number
from pipeline.dataset.codecs.time_grid import BUSINESS, DAY, MONTH, TIME, Grid, cycles, stamps_of
from pipeline.errors import ConfigError, DataError

NAMED = 5  # places that are reported for each finding
# what can be wrong, and how to fix it
UNREADABLE = "unreadable stamp", "write 2016-07-01 13:00, 2016-07 or an integer"
NAMELESS = "row without an id", "fill the columns of --id"
TWICE = "stamp that a series has twice", "keep one row of each, or name the series of each row with --id"
BETWEEN = "stamp between the steps of the grid", "resample the rows to one step"
INFINITE = "infinite value", "correct or delete it"
MISSING = "step without a value", "add the value, or accept the gap with --fill-gaps"
UNKNOWN = "known covariate without a value", "add it at every step, or --drop it"


@dataclass
class Findings:
    """Problems of a table: the count and the first places of each kind."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    places: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, finding: tuple[str, str], place: str, count: int = 1) -> None:
        """Count a finding at a place."""
        self.counts[finding] += count
        named = self.places.setdefault(finding, [])
        if len(named) < NAMED:
            named.append(place)

    def refuse(self, source: str, accepted: tuple[tuple[str, str], ...] = ()) -> None:
        """Raise an error if there are findings that are not accepted.

        Raises:
            DataError: lists all findings.
        """
        lines = [self._line(finding) for finding in self.counts if finding not in accepted]
        if lines:
            raise DataError(f"{source} cannot be used for training: {'; '.join(lines)}")

    def as_json(self) -> dict[str, Any]:
        """Return the findings as stored in `report.json`."""
        return {what[0]: {"count": count, "first": self.places[what]} for what, count in self.counts.items()}

    def _line(self, finding: tuple[str, str]) -> str:
        what, fix = finding
        named, count = self.places[finding], self.counts[finding]
        more = ", ..." if count > len(named) and len(named) == NAMED else ""
        return f"{count} x {what} ({', '.join(named)}{more}): {fix}"


@dataclass(frozen=True)
class TableLayout:
    """The roles of the columns of a table.

    Args:
        time: column of stamps.
        id: columns that together name a series; none in a wide table.
        targets: columns to predict.
        known: covariates that are known over the horizon.
        calendar: add the position in the day, week and year as known covariates.
    """

    time: str
    id: tuple[str, ...]
    targets: tuple[str, ...]
    known: tuple[str, ...]
    calendar: bool

    def as_json(self) -> dict[str, Any]:
        """Return the entries of a manifest."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "TableLayout":
        """Return the layout that a manifest describes."""
        lists = {name: tuple(entry[name]) for name in ("id", "targets", "known")}
        return cls(time=entry["time"], calendar=entry["calendar"], **lists)


class Frame(NamedTuple):
    """One series on its grid."""

    name: str
    start: int
    """The first stamp."""
    step: int
    """Units of the grid per step."""
    values: Float64[np.ndarray, " L"]
    """NaN where a value is missing."""
    known: Float64[np.ndarray, "L K"]


def frames_of(
    table: Any, layout: TableLayout, findings: Findings, grid: Grid | None = None, zone: str = ""
) -> tuple[Grid, list[Frame]]:
    """Return the grid and the series of a table.

    Args:
        table: an Arrow table.
        layout: roles of its columns.
        findings: problems are added here.
        grid: the grid of a dataset that was prepared before (default: found in the stamps).
        zone: time zone of the stamps (default: that of the column, if it has one).

    Raises:
        DataError: a column is missing or holds no numbers, or the stamps do not have the unit of the grid.
        ConfigError: the time zone does not exist, or the calendar requires one.
    """
    read, stamps, bad, offsets = stamps_of(column(table, layout.time, "--time"), zone, grid)
    if layout.calendar and len(offsets) > 1:
        raise ConfigError(
            f"column {layout.time} has stamps with the UTC offsets {', '.join(offsets)}: the calendar requires their "
            "time zone. Give --time-zone AREA/CITY."
        )
    for row in np.flatnonzero(bad):
        findings.add(UNREADABLE, f"row {row + 1}")
    rows = np.flatnonzero(~bad)
    if grid is not None and read.unit != grid.unit and len(rows) > 1:
        raise DataError(
            f"column {layout.time} has stamps in {read.unit}s, expected {grid.unit}s as in training. "
            "Write the stamps as in the table that was prepared."
        )
    if grid is not None:
        _check_step(column(table, layout.time, "--time"), layout.time, zone, grid, stamps[rows])
    grid = grid or read.with_step_of(stamps[rows])
    targets = [_numbers(table, name) for name in layout.targets]
    known = _known(table, layout)
    found = []
    for identity, mine in _groups(table, layout, rows, findings):
        position, start, length = _placed(grid, stamps[mine], identity or "the table", findings)
        for name, numbers in zip(layout.targets, targets, strict=True):
            parts = [identity] if identity and len(layout.targets) == 1 else [identity, name] if identity else [name]
            found.append(_frame(" ".join(parts), grid, start, length, position, numbers[mine], known[mine], layout))
    return grid, found


def _check_step(times: pa.ChunkedArray, name: str, zone: str, grid: Grid, stamps: Int64[np.ndarray, " R"]) -> None:
    """Raise DataError if the stamps have another step than the grid of the dataset."""
    natural = stamps_of(times, zone or grid.zone)
    own = natural.grid.with_step_of(natural.values[~natural.bad])
    finer = grid.unit in (MONTH, BUSINESS) and own.unit == TIME and own.step < DAY * (28 if grid.unit == MONTH else 1)
    other = len(np.unique(stamps)) > 2 and replace(grid, step=1).with_step_of(stamps).step != grid.step
    if len(stamps) > 2 and (finer or other):
        raise DataError(f"column {name}: expected a step of {grid} as in training, got {own}. Give such a table.")


def _frame(
    name: str,
    grid: Grid,
    start: int,
    length: int,
    position: Int64[np.ndarray, " R"],
    numbers: Float64[np.ndarray, " R"],
    known: Float64[np.ndarray, "R K"],
    layout: TableLayout,
) -> Frame:
    values, ahead = np.full(length, np.nan), np.full((length, known.shape[1]), np.nan)
    values[position], ahead[position] = numbers, known
    if layout.calendar:
        _, places = cycles(grid, start + grid.step * np.arange(length))
        ahead = np.concatenate([ahead, places], 1)
    return Frame(name, start, grid.step, values, ahead)


def _groups(
    table: Any, layout: TableLayout, rows: Int64[np.ndarray, " _"], findings: Findings
) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    """Yield the name and the rows of each series, by first appearance; a wide table has one group without a name."""
    if not layout.id:
        yield "", rows
        return
    parts = [column(table, name, "--id").to_pylist() for name in layout.id]
    names = [None if None in each else " ".join(map(str, each)) for each in zip(*parts, strict=True)]
    by_name: dict[str, list[int]] = {}
    for row in rows.tolist():
        if names[row] is None:
            findings.add(NAMELESS, f"row {row + 1}")
        else:
            by_name.setdefault(str(names[row]), []).append(row)
    for name, mine in by_name.items():
        yield name, np.array(mine)


def _placed(
    grid: Grid, stamps: Int64[np.ndarray, " R"], series: str, findings: Findings
) -> tuple[Int64[np.ndarray, " R"], int, int]:
    """Return the step of each row, the first stamp, and the number of steps."""
    if not len(stamps):
        return np.zeros(0, np.int64), 0, 0
    start = int(stamps.min())
    position, rest = np.divmod(stamps - start, grid.step)
    for stamp in grid.text(stamps[rest != 0]):
        findings.add(BETWEEN, f"{series} at {stamp}, the step is {grid}")
    different, counts = np.unique(stamps, return_counts=True)
    for stamp in grid.text(different[counts > 1]):
        findings.add(TWICE, f"{series} at {stamp}")
    return position, start, int(position.max()) + 1


def _numbers(table: Any, name: str) -> Float64[np.ndarray, " R"]:
    values = column(table, name, "--target")
    if pa.types.is_null(values.type):
        return np.full(len(table), np.nan)
    if not is_number(table, name) and not pa.types.is_boolean(values.type):
        raise DataError(f"column {name}: expected numbers, got {values.type}. --drop it, or name it with --id")
    found: Float64[np.ndarray, " R"] = values.cast(pa.float64()).to_numpy()
    return found


def _known(table: Any, layout: TableLayout) -> Float64[np.ndarray, "R K"]:
    columns = [_numbers(table, name) for name in layout.known]
    return np.stack(columns, 1) if columns else np.zeros((len(table), 0))


def stretches(missing: Bool[np.ndarray, " L"]) -> list[tuple[int, int]]:
    """Return the first step and the length of each run of missing steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    return [(int(first), int(after - first)) for first, after in edges.reshape(-1, 2)]


def filled(values: Float64[np.ndarray, " L"]) -> tuple[Float64[np.ndarray, " L"], Bool[np.ndarray, " L"]]:
    """Return the values with each missing one replaced by the last one before it, and a mask of observed values."""
    observed = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(observed, np.arange(len(values)), 0))
    return values[last], observed
