"""Prepare a dataset of time series from tables: CSV or Parquet, with a column or an id for each series.

`unroll prepare series FILE --output data/NAME`. Every series is standardised by the mean and the standard deviation
of its training part. The dataset stores both, so that forecasts have the units of the file.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.series.checks import check_values
from data_prep.series.columns import check_columns, layout_of
from data_prep.series.scaling import scaling_of, standardised
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin
from data_prep.workspace.report import Report
from data_prep.workspace.workspace import Workplace
from pipeline.arguments import Parser, non_negative_integer, positive_integer
from pipeline.dataset.codecs.findings import MISSING, NAMED, Findings
from pipeline.dataset.codecs.numbers import MARKS
from pipeline.dataset.codecs.series_table import TableLayout, read_series_table
from pipeline.dataset.codecs.time_format import CHOICES, check_time_format
from pipeline.dataset.codecs.time_grid import Grid, cycles
from pipeline.dataset.codecs.time_series import Frame, frames_of, trimmed
from pipeline.dataset.series import PARTS, Series, write_series
from pipeline.dataset.shard import Shard
from pipeline.errors import ConfigError, DataError

PROGRAM = "unroll prepare series"
EXAMPLES = """examples:
  unroll prepare series ETTh1.csv --lengths 8640 2880 2880 --output data/etth1
  unroll prepare series sales.parquet --time day --id shop item --target sold --known price --calendar \\
      --output data/sales"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(PROGRAM, (__doc__ or "").split("\n")[0], EXAMPLES)
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        type=Path,
        metavar="FILE",
        help=".csv (plain, .gz or .xz) or .parquet files with the same columns",
    )
    shared.add_output(parser)
    _add_layout(parser)
    add = parser.add_argument_group("roles of the columns").add_argument
    stamps = parser.add_argument_group("stamps").add_argument
    add("--time", metavar="COLUMN", help="column of time stamps (default: the first column)")
    stamps("--no-time", action="store_true", help="count the rows of each series: no column has stamps")
    written = f"format of the stamps, in prepare and in histories: {CHOICES} (default: recognised)"
    stamps("--time-format", default="", metavar="FORMAT", help=written.replace("%", "%%"))
    zone = "time zone of stamps without an offset, or with offsets that change (default: as written)"
    stamps("--time-zone", default="", metavar="AREA/CITY", help=zone)
    add("--id", nargs="+", default=[], metavar="COLUMN", help="columns that together name a series, in a long table")
    add(
        "--target",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns to predict (default: all other columns of numbers)",
    )
    add(
        "--known",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="covariates that are known over the horizon, such as prices and holidays",
    )
    add("--drop", nargs="+", default=[], metavar="NAME", help="columns, or series of a long table, to omit")
    add("--calendar", action="store_true", help="add the position in the day, week and year as known covariates")
    season = "period of MASE and of the seasonal naive forecast (default: depends on the step)"
    add("--season", type=positive_integer, metavar="STEPS", help=season)
    splits = parser.add_argument_group("splits by time, at the same stamps for all series; the test split is last")
    lengths = "steps of training, validation and test; later steps are dropped"
    splits.add_argument("--lengths", nargs=3, type=non_negative_integer, metavar="STEPS", help=lengths)
    shared.add_shares(splits, 0.2, "time")
    gaps = parser.add_argument_group("gaps").add_argument
    gaps(
        "--fill-gaps", action="store_true", help="fill missing steps with the value before them, and never predict them"
    )
    return parser


def _add_layout(parser: Parser) -> None:
    add = parser.add_argument_group("layout of the files").add_argument
    add("--no-header", action="store_true", help="the first line has values; columns are named 1, 2, ...")
    rows = "each row is a series: its id (in the columns of --id or in the first one), then its values, without stamps"
    add("--series-in-rows", action="store_true", help=rows)
    decimal = "decimal mark; the other one may separate thousands (default: a point, without thousands)"
    add("--decimal", choices=list(MARKS), help=decimal)


def main(argv: list[str]) -> int:
    """Prepare a dataset of series.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source cannot be read, or series cannot be used for training; the message lists all problems.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    findings, report = Findings(), Report("series")
    table = read_series_table(options.sources, header=not options.no_header)
    layout = layout_of(table, options, report)
    grid, frames = frames_of(table, layout, findings, None, options.time_zone, options.time_format)
    findings.refuse_texts(", ".join(map(str, options.sources)))
    _check_dropped(options, table.column_names, [frame.name for frame in frames])
    frames = [trimmed(frame) for frame in frames if frame.name not in options.drop]
    if not any(len(frame.values) for frame in frames):
        findings.refuse(", ".join(map(str, options.sources)))
    place = shared.workplace(options)
    with place.entered(fresh=True):  # tables are small: no need to resume
        entries = _prepare(place, grid, frames, layout, options, findings, report, argv)
    names = ", ".join(frame.name for frame in frames[:NAMED]) + (", ..." if len(frames) > NAMED else "")
    print(f"{len(frames):,} series ({names}), step {grid}, season {options.season or grid.season}{_span(grid, frames)}")
    for finding, times in findings.counts.items():
        print(f"  {times:,} x {finding[0]}: {', '.join(findings.places[finding])}")
    for line in [*report.lines()][1:]:
        print(line)
    for name, entry in entries.items():
        print(f"{name}: {entry['steps']:,} steps")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _check(options: argparse.Namespace) -> None:
    shared.check(options)
    check_columns(options)
    if options.time_format:
        check_time_format(options.time_format)


def _check_dropped(options: argparse.Namespace, columns: Sequence[str], series: Sequence[str]) -> None:
    if unknown := [name for name in options.drop if name not in columns and name not in series]:
        raise ConfigError(f"--drop {unknown[0]}: expected a column or a series, got neither. Check its name")


def _span(grid: Grid, frames: Sequence[Frame]) -> str:
    """Return the first and the last stamp, as they are read and written."""
    last = max(frame.start + grid.step * (len(frame.values) - 1) for frame in frames)
    return ", from {} to {}".format(*grid.text(np.array([min(frame.start for frame in frames), last])))


def _prepare(
    place: Workplace,
    grid: Grid,
    frames: list[Frame],
    layout: TableLayout,
    options: argparse.Namespace,
    findings: Findings,
    report: Report,
    argv: Sequence[str],
) -> dict[str, Any]:
    source, accepted = ", ".join(map(str, options.sources)), (MISSING,) if options.fill_gaps else ()
    for frame in frames:
        check_values(frame, grid, list(layout.known), findings)
    findings.refuse(source, accepted)
    edges = _edges(grid, frames, layout, options)
    known = [*layout.known, *(cycles(grid, np.zeros(1, np.int64))[0] if layout.calendar else [])]
    scaling, ahead = scaling_of(frames, edges, len(layout.known), known, findings, report)
    findings.refuse(source, accepted)
    season = options.season or grid.season
    made = [
        standardised(frame, own, scaling[frame.name], ahead, season) for frame, own in zip(frames, edges, strict=True)
    ]
    report.documents = len(made)
    entries = _entries(made, len(known), write_series(place.path / "series.arrow", made))
    about = {
        **layout.as_json(),
        **grid.as_json(),
        "season": season,
        "fill_gaps": options.fill_gaps,
        "dropped": options.drop,
        "covariates": known,
        "covariate_mean": ahead[0].tolist(),
        "covariate_deviation": ahead[1].tolist(),
        "scaling": scaling,
    }
    place.publish(
        {
            "kind": "series",
            "splits": entries,
            "series": about,
            **origin(PROGRAM, argv, options.sources, "pyarrow"),
        },
        {**report.as_json(), "found": findings.as_json()},
        options.overwrite,
    )
    return entries


def _entries(made: list[Series], covariates: int, shard: Shard) -> dict[str, Any]:
    """Return the manifest's entries of the splits, which share one shard."""
    entries = {}
    for part, name in enumerate(PARTS):
        steps = sum(int(one.observed[one.edges[part] : one.edges[part + 1]].sum()) for one in made)
        if steps:
            counts = {"series": len(made), "steps": steps, "covariates": covariates}
            entries[name] = {**counts, "shards": [shard._asdict()]}
    return entries


def _ends(grid: Grid, frames: list[Frame], options: argparse.Namespace) -> list[int]:
    """Return the first stamps of training, validation and test, and the end of the test split."""
    first = min(frame.start for frame in frames)
    after = max(frame.start + len(frame.values) * grid.step for frame in frames)
    steps = (after - first) // grid.step
    if options.lengths:
        if sum(options.lengths) > steps:
            raise DataError(f"--lengths: the sum is {sum(options.lengths)} steps, but the table has {steps}")
        counts = np.cumsum([0, *options.lengths])
    else:
        train = round(steps * (1 - options.validation_share - options.test_share))
        counts = np.array([0, train, round(steps * (1 - options.test_share)), steps])
    return [first + int(count) * grid.step for count in counts]


def _edges(grid: Grid, frames: list[Frame], layout: TableLayout, options: argparse.Namespace) -> list[tuple[int, ...]]:
    """Return the boundaries of the splits as steps of each series.

    They are at the same stamps for all series, or at the same fractions of each series if those have no stamps.
    """
    alone = layout.in_rows or (not layout.time and layout.id)
    common = [] if alone else _ends(grid, frames, options)
    return [
        tuple(
            min(max((end - frame.start) // grid.step, 0), len(frame.values))
            for end in common or _ends(grid, [frame], options)
        )
        for frame in frames
    ]


if __name__ == "__main__":
    shared.run_as_script(main)
