"""The roles of the columns of a table, by the options; columns that are not used are counted and named."""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.workspace.report import Report
from pipeline.dataset.codecs.numbers import is_text, numbers_of
from pipeline.dataset.codecs.series_table import TableLayout
from pipeline.dataset.codecs.time_format import COUNT, ISO, parse_stamps, recognised
from pipeline.errors import ConfigError, DataError

TEXT, TRUTHS, DATES = "column of text", "column of truth values", "column of dates"
EMPTY, UNNAMED = "column without a value", "column without a name"
TRUTH = r"(?i)^\s*(true|false)\s*$"
PROBED = 2000  # rows that are examined before all rows are
MOSTLY = 0.5  # fraction of the values of a column of numbers that are numbers


def check_columns(options: argparse.Namespace) -> None:
    """Check that the options do not contradict each other.

    Raises:
        ConfigError: an option has no meaning beside another one.
    """
    stamps = [("--time", options.time), ("--time-format", options.time_format), ("--time-zone", options.time_zone)]
    stamps += [("--calendar", options.calendar)]
    roles = [("--target", options.target), ("--known", options.known)]
    uneven = options.lengths and options.no_time and options.id
    for option, others in (("--no-time", stamps), ("--series-in-rows", [*stamps, *roles])):
        given = [name for name, value in others if value] if getattr(options, option[2:].replace("-", "_")) else []
        if given:
            raise ConfigError(f"{given[0]}: not an option of tables with {option}. Omit one of the two")
    if uneven or (options.lengths and options.series_in_rows):
        raise ConfigError("--lengths: series without stamps are split by fractions. Give --test-share instead")


def layout_of(table: pa.Table, options: argparse.Namespace, report: Report) -> TableLayout:
    """Return the roles of the columns; all columns of numbers without another role are targets.

    Args:
        table: the table.
        options: the command line.
        report: columns that are left out are counted here.

    Raises:
        DataError: no column is a target, a column has two roles, or the column of stamps is not clear.
    """
    names = table.column_names
    counted = options.no_time or options.series_in_rows
    stamps = "" if counted else options.time or _first(names)
    ids = options.id or (names[:1] if options.series_in_rows else [])
    given = [*([stamps] if stamps else []), *ids, *options.known, *options.target]
    if twice := [name for name in options.target if name in (stamps, *ids, *options.known)]:
        raise DataError(f"column {twice[0]} has two roles: a target cannot be a time, an id or a known covariate")
    rest = [name for name in names if name not in (*given, *options.drop)]
    reasons = {name: _unused(table.column(name), name, options) for name in rest}
    unused = {name: reason for name, reason in reasons.items() if reason}
    if not options.target:
        for name, reason in unused.items():
            report.leave_out(name or "(no name)", reason, _example(table.column(name)))
    _check_stamps(table, stamps, [name for name, reason in unused.items() if reason == DATES], options)
    targets = options.target or [name for name in rest if name not in unused]
    if not targets:
        raise DataError(
            f"no column of numbers to predict; the columns are {', '.join(names)}. Name others with --target"
        )
    targets, known = ([name for name in part if name not in options.drop] for part in (targets, options.known))
    used = [*given, *targets]
    return TableLayout(
        stamps,
        tuple(ids),
        () if options.series_in_rows else tuple(targets),
        tuple(known),
        options.calendar,
        options.series_in_rows,
        not options.no_header,
        options.decimal or "",
        tuple(name for name in names if name not in used),
    )


def _first(names: list[str]) -> str:
    if names[0] and not names[0].startswith("Unnamed:"):
        return names[0]
    raise DataError(
        f"the first column has no name, like an index. Give --time COLUMN, one of {', '.join(names[1:])}, or --no-time"
    )


def _unused(column: pa.ChunkedArray, name: str, options: argparse.Namespace) -> str:
    """Return why a column without a role is not a target; "" if it is one."""
    if not name or name.startswith("Unnamed:"):
        return UNNAMED
    probe = column.take(np.arange(0, len(column), 1 + len(column) // PROBED))
    share = numbers_of(probe, options.decimal or "").share
    if not share >= MOSTLY:
        probe, share = column, numbers_of(column, options.decimal or "").share
    if np.isnan(share):
        return "" if options.series_in_rows else EMPTY
    if pa.types.is_temporal(column.type):
        return DATES
    text = is_text(column.type)
    if pa.types.is_boolean(column.type) or (text and pc.any(pc.match_substring_regex(probe, TRUTH)).as_py()):
        return TRUTHS
    if share >= MOSTLY:
        return ""
    return DATES if text and not parse_stamps([_example(column)], ISO).isna().any() else TEXT


def _check_stamps(table: pa.Table, stamps: str, dates: list[str], options: argparse.Namespace) -> None:
    """Raise DataError if the first column has counts, and another one dates."""
    if options.time or options.time_format or not stamps or not dates or pa.types.is_temporal(table[stamps].type):
        return
    texts = [text for text in pc.unique(table[stamps].cast(pa.string()).drop_null()).to_pylist() if text]
    if recognised(texts, stamps) == COUNT:
        raise DataError(
            f"column {stamps}: expected dates in the first column, got counts, and dates in column {dates[0]}. "
            f"Give --time {dates[0]} or --time {stamps}"
        )


def _example(column: pa.ChunkedArray) -> str:
    """Return the first value that is not empty."""
    found = next((value for each in column if (value := each.as_py()) not in (None, "")), "")
    return str(found)
