"""Read series on one time grid from a table of stamps and numbers, and report invalid rows.

In a wide table each column of numbers is a series; in a long table, id columns name the series of a row.

Legend: R rows of a table, L steps of a series, K known covariates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple
from unicodedata import normalize

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from pipeline.dataset.codecs.findings import (
    BETWEEN,
    INFINITE,
    MISSING,
    NAMELESS,
    NOT_NUMBER,
    SEPARATED,
    TWICE,
    UNREADABLE,
    Findings,
)
from pipeline.dataset.codecs.numbers import numbers_of
from pipeline.dataset.codecs.series_table import TableLayout
from pipeline.dataset.codecs.table import column, distinct_texts
from pipeline.dataset.codecs.time_format import COUNT
from pipeline.dataset.codecs.time_grid import BUSINESS, DAY, MONTH, TIME, Grid, Stamps, cycles, stamps_of
from pipeline.errors import ConfigError, DataError


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
    table: pa.Table,
    layout: TableLayout,
    findings: Findings,
    grid: Grid | None = None,
    zone: str = "",
    time_format: str = "",
) -> tuple[Grid, list[Frame]]:
    """Return the grid and the series of a table.

    Args:
        table: an Arrow table.
        layout: roles of its columns.
        findings: problems are added here.
        grid: the grid of a dataset that was prepared before (default: found in the stamps).
        zone: time zone of the stamps (default: that of the column, if it has one).
        time_format: format of the stamps (default: that of the grid, or recognised).

    Raises:
        DataError: a column is missing, or the stamps do not have the unit or the step of the grid.
        ConfigError: the time zone does not exist, or the calendar requires dates.
    """
    if layout.in_rows:
        return Grid(COUNT), list(_in_rows(table, layout, findings))
    read = _stamps(table, layout, grid, zone, time_format)
    if layout.calendar and read.grid.unit == COUNT:
        raise ConfigError(f"--calendar requires dates, but the stamps of column {layout.time} are counts. Omit it")
    if layout.time:
        _report_stamps(table.column(layout.time), read, findings)
    rows = np.flatnonzero(~read.bad & ~read.off)
    if grid is not None and layout.time:
        _check_step(table.column(layout.time), layout.time, zone, grid, read, rows)
    targets = [_numbers(table, name, layout, findings) for name in layout.targets]
    known = [_numbers(table, name, layout, findings) for name in layout.known]
    ahead = np.stack(known, 1) if known else np.zeros((len(table), 0))
    grid = grid or (read.grid.with_step_of(read.values[rows]) if layout.time else read.grid)
    found = []
    for identity, mine in _groups(table, layout, rows, findings):
        stamps = read.values[mine] if layout.time else np.arange(len(mine))
        position, start, length = _placed(grid, stamps, joined_name(identity) or "the table", findings)
        covariates = _at(position, length, ahead[mine])
        if layout.calendar:
            places = cycles(grid, start + grid.step * np.arange(length))[1]
            covariates = np.concatenate([covariates, places], 1)
        for name, numbers in zip(layout.targets, targets, strict=True):
            parts = identity if identity and len(layout.targets) == 1 else (*identity, name)
            values = _at(position, length, numbers[mine])
            found.append(Frame(joined_name(parts), start, grid.step, values, covariates))
    return grid, found


def joined_name(parts: Sequence[str]) -> str:
    """Return the name of a series: one part as it is, several separated by blanks and quoted where they have blanks."""
    if len(parts) == 1:
        return parts[0]
    quoted = (part.replace('"', '""') for part in parts)
    return " ".join(f'"{part}"' if not part or '"' in part or any(map(str.isspace, part)) else part for part in quoted)


def _stamps(table: pa.Table, layout: TableLayout, grid: Grid | None, zone: str, time_format: str) -> Stamps:
    if layout.time:
        return stamps_of(column(table, layout.time, "--time"), zone, grid, time_format, layout.time)
    none = np.zeros(len(table), bool)
    return Stamps(Grid(COUNT), np.zeros(len(table), np.int64), none, none)


def _report_stamps(times: pa.ChunkedArray, read: Stamps, findings: Findings) -> None:
    def described(row: int) -> str:
        return f"row {row + 1}: {times[row].as_py()}"

    findings.add_all(UNREADABLE, np.flatnonzero(read.bad).tolist(), described)
    findings.add_all(BETWEEN, np.flatnonzero(read.off).tolist(), described)


def _check_step(
    times: pa.ChunkedArray, name: str, zone: str, grid: Grid, read: Stamps, rows: Int64[np.ndarray, " _"]
) -> None:
    """Raise DataError if the stamps have another unit or step than the grid of the dataset."""
    stamps = read.values[rows]
    if read.grid.unit != grid.unit and len(rows) > 1:
        raise DataError(
            f"column {name}: expected stamps in {grid.unit}s as in training, got {read.grid.unit}s. "
            "Write the stamps as in the table that was prepared."
        )
    natural = stamps_of(times, zone or grid.zone, None, COUNT if grid.unit == COUNT else grid.time_format, name)
    own = natural.grid.with_step_of(natural.values[~natural.bad])
    finer = grid.unit in (MONTH, BUSINESS) and own.unit == TIME and own.step < DAY * (28 if grid.unit == MONTH else 1)
    other = len(np.unique(stamps)) > 2 and replace(grid, step=1).with_step_of(stamps).step != grid.step
    if len(read.values) > 2 and (finer or other):
        raise DataError(f"column {name}: expected a step of {grid} as in training, got {own}. Give such a table.")


def _in_rows(table: pa.Table, layout: TableLayout, findings: Findings) -> Iterator[Frame]:
    """Yield the series of a table that has one in each row, from the first to the last value."""
    ids = _id_columns(table, layout)
    columns = [name for name in table.column_names if name not in (*layout.id, *(layout.unused or ()))]
    if not columns:
        raise DataError(f"expected columns of values after {', '.join(layout.id)}, got none. Give --id")
    values = np.stack([_numbers(table, name, layout, findings) for name in columns], 1)
    taken: set[str] = set()
    for row in _named(ids, np.arange(len(table)), findings).tolist():
        if (name := joined_name(_identity(ids, row))) in taken:
            findings.add(TWICE, f"{name} in row {row + 1}")
        taken.add(name)
        yield trimmed(Frame(name, 0, 1, values[row], np.zeros((len(columns), 0))))


def _at(
    position: Int64[np.ndarray, " R"], length: int, rows: Float64[np.ndarray, "R *_"]
) -> Float64[np.ndarray, "L *_"]:
    """Return the rows at their steps, NaN at the others."""
    found = np.full((length, *rows.shape[1:]), np.nan)
    found[position] = rows
    return found


def _groups(
    table: pa.Table, layout: TableLayout, rows: Int64[np.ndarray, " _"], findings: Findings
) -> Iterator[tuple[tuple[str, ...], Int64[np.ndarray, " _"]]]:
    """Yield the ids and the rows of each series, by first appearance; a wide table has one group without ids."""
    if not layout.id:
        yield (), rows
        return
    columns = _id_columns(table, layout)
    rows = _named(columns, rows, findings)
    sizes = tuple(len(texts) for texts, _ in columns)
    codes = np.ravel_multi_index(tuple(places[rows] for _, places in columns), sizes)
    order = np.argsort(codes := pd.factorize(codes)[0], kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1) if len(rows) else []:
        yield _identity(columns, int(rows[mine[0]])), rows[mine]


Texts = tuple[list[str], Int64[np.ndarray, " R"]]  # the different texts of a column, and the place of each row


def _id_columns(table: pa.Table, layout: TableLayout) -> list[Texts]:
    return [_in_normal_form(*distinct_texts(column(table, name, "--id"))) for name in layout.id]


def _in_normal_form(texts: list[str], places: Int64[np.ndarray, " R"]) -> Texts:
    """Return texts in Unicode's normal form NFC, each once."""
    codes, normal = pd.factorize(np.array([normalize("NFC", text) for text in texts], object))
    return list(normal), codes[places]


def _named(columns: list[Texts], rows: Int64[np.ndarray, " _"], findings: Findings) -> Int64[np.ndarray, " _"]:
    """Return the rows that have all ids."""
    bad = np.zeros(len(rows), bool)
    for texts, places in columns:
        bad |= np.array([not text.strip() for text in texts])[places[rows]]
    findings.add_all(NAMELESS, rows[bad].tolist(), lambda row: f"row {row + 1}")
    return rows[~bad]


def _identity(columns: list[Texts], row: int) -> tuple[str, ...]:
    """Return the ids of a row exactly as they are written."""
    return tuple(texts[places[row]] for texts, places in columns)


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


def _numbers(table: pa.Table, name: str, layout: TableLayout, findings: Findings) -> Float64[np.ndarray, " R"]:
    values = column(table, name, "--target")
    read = numbers_of(values, layout.decimal)
    for finding, rows in ((SEPARATED, read.separated), (NOT_NUMBER, read.bad & ~read.separated)):
        findings.add_all(
            finding, np.flatnonzero(rows).tolist(), lambda row: f"column {name}, row {row + 1}: {values[row].as_py()}"
        )
    return read.values


def trimmed(frame: Frame) -> Frame:
    """Return the series from its first to its last value; covariates are repeated within its gaps."""
    there = np.flatnonzero(~np.isnan(frame.values))
    if not len(there):
        return frame._replace(values=frame.values[:0], known=frame.known[:0])
    first, after = there[0], there[-1] + 1
    values, known = frame.values[first:after], frame.known[first:after]
    gap = np.isnan(values)[:, None] & np.isnan(known)
    start = frame.start + int(first) * frame.step
    if not gap.any():
        return Frame(frame.name, start, frame.step, values, known)
    last = np.maximum.accumulate(np.where(gap, 0, np.arange(len(values))[:, None]))
    return Frame(frame.name, start, frame.step, values, np.take_along_axis(known, last, 0))


def check_steps(frame: Frame, grid: Grid, findings: Findings) -> None:
    """Find missing and infinite values of a trimmed series."""
    for first, length in stretches(np.isnan(frame.values)):
        [stamp] = grid.text(np.array([frame.start + first * grid.step]))
        findings.add(MISSING, f"{frame.name} from {stamp}: {length}", length)
    if np.isinf(frame.values).any():
        findings.add(INFINITE, frame.name, int(np.isinf(frame.values).sum()))


def stretches(missing: Bool[np.ndarray, " L"]) -> list[tuple[int, int]]:
    """Return the first step and the length of each run of missing steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    return [(int(first), int(after - first)) for first, after in edges.reshape(-1, 2)]


def filled(values: Float64[np.ndarray, " L"]) -> tuple[Float64[np.ndarray, " L"], Bool[np.ndarray, " L"]]:
    """Return the values with each missing one replaced by the last one before it, and a mask of observed values."""
    observed = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(observed, np.arange(len(values)), 0))
    return values[last], observed
