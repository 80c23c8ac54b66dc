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
from jaxtyping import Float64

from data_prep.series.checks import (
    CONSTANT,
    UNINFORMATIVE,
    check_values,
    observed_mean,
    seasonal_error,
    trimmed,
)
from data_prep.workspace import options as shared
from data_prep.workspace.entries import origin
from data_prep.workspace.workspace import Workplace
from pipeline.arguments import Parser, non_negative_integer, positive_integer
from pipeline.dataset.codecs.table import is_number, read_table, with_numbers
from pipeline.dataset.codecs.time_grid import Grid, cycles
from pipeline.dataset.codecs.time_series import MISSING, Findings, Frame, TableLayout, filled, frames_of
from pipeline.dataset.series import PARTS, Series, write_series
from pipeline.errors import DataError

PROGRAM = "unroll prepare series"
Covariates = tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, " K"]]  # mean and standard deviation
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
    add = parser.add_argument_group("roles of the columns").add_argument
    add("--time", metavar="COLUMN", help="column of time stamps (default: the first column)")
    zone = "time zone of stamps without an offset, or with offsets that change (default: as written)"
    add("--time-zone", default="", metavar="AREA/CITY", help=zone)
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


def main(argv: list[str]) -> int:
    """Prepare a dataset of series.

    Raises:
        ConfigError: the options contradict each other.
        DataError: a source cannot be read, or series cannot be used for training; the message lists all problems.
    """
    options = _parser().parse_args(argv)
    _check(options)
    began = time.monotonic()
    findings = Findings()
    table = with_numbers(read_table(options.sources))
    layout = layout_of(table, options)
    grid, frames = frames_of(table, layout, findings, zone=options.time_zone)
    frames = [trimmed(frame) for frame in frames if frame.name not in options.drop]
    place = shared.workplace(options)
    with place.entered(fresh=True):  # tables are small: no need to resume
        entries = _prepare(place, grid, frames, layout, options, findings, argv)
    print(f"{len(frames):,} series, step {grid}, season {options.season or grid.season}")
    for finding, times in findings.counts.items():
        print(f"  {times:,} x {finding[0]}: {', '.join(findings.places[finding])}")
    for name, entry in entries.items():
        print(f"{name}: {entry['steps']:,} steps")
    print(f"{options.output} in {time.monotonic() - began:.1f} s")
    return 0


def _check(options: argparse.Namespace) -> None:
    shared.check(options)


def layout_of(table: Any, options: argparse.Namespace) -> TableLayout:
    """Return the roles of the columns by the options; all other columns of numbers are targets.

    Raises:
        DataError: no column is a target, or a column has two roles.
    """
    stamps = options.time or table.column_names[0]
    given = [stamps, *options.id, *options.known]
    rest = [name for name in table.column_names if name not in (*given, *options.drop) and is_number(table, name)]
    targets = [name for name in options.target or rest if name not in options.drop]
    known = [name for name in options.known if name not in options.drop]
    if twice := [name for name in targets if name in given]:
        raise DataError(f"column {twice[0]} has two roles: a target cannot be a time, an id or a known covariate")
    if not targets:
        raise DataError(f"no column of numbers to predict; the columns are {', '.join(table.column_names)}")
    return TableLayout(stamps, tuple(options.id), tuple(targets), tuple(known), options.calendar)


def _prepare(
    place: Workplace,
    grid: Grid,
    frames: list[Frame],
    layout: TableLayout,
    options: argparse.Namespace,
    findings: Findings,
    argv: Sequence[str],
) -> dict[str, Any]:
    source, accepted = ", ".join(map(str, options.sources)), (MISSING,) if options.fill_gaps else ()
    for frame in frames:
        check_values(frame, grid, list(layout.known), findings)
    findings.refuse(source, accepted)
    ends = _ends(grid, frames, options)
    edges = [_edges(frame, grid, ends) for frame in frames]
    known = [*layout.known, *(cycles(grid, np.zeros(1, np.int64))[0] if layout.calendar else [])]
    scaling, ahead = _scaling(frames, edges, len(layout.known), known, findings)
    findings.refuse(source, accepted)
    season = options.season or grid.season
    made = [_series(frame, own, scaling[frame.name], ahead, season) for frame, own in zip(frames, edges, strict=True)]
    shard = write_series(place.path / "series.arrow", made)
    entries = {}
    for part, name in enumerate(PARTS):
        steps = sum(int(one.observed[one.edges[part] : one.edges[part + 1]].sum()) for one in made)
        if steps:
            counts = {"series": len(made), "steps": steps, "covariates": len(known)}
            entries[name] = {**counts, "shards": [shard._asdict()]}
    about = {
        **layout.as_json(),
        **grid.as_json(),
        "season": season,
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
        {"series": len(made), "found": findings.as_json()},
        options.overwrite,
    )
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


def _edges(frame: Frame, grid: Grid, ends: list[int]) -> tuple[int, ...]:
    """Return the same boundaries as steps of one series."""
    return tuple(min(max((end - frame.start) // grid.step, 0), len(frame.values)) for end in ends)


def _scaling(
    frames: list[Frame], edges: list[tuple[int, ...]], given: int, known: list[str], findings: Findings
) -> tuple[dict[str, tuple[float, float]], Covariates]:
    """Return mean and standard deviation of the training part, for each series and for each known covariate.

    Covariates are scaled over all series. Those of the calendar, after the first `given`, are not scaled.
    """
    training = [
        frame._replace(values=frame.values[: own[1]], known=frame.known[: own[1]])
        for frame, own in zip(frames, edges, strict=True)
    ]
    scaling = {frame.name: observed_mean(frame.values) for frame in training}
    for name, (_, deviation) in scaling.items():
        if not deviation > 0:
            findings.add(CONSTANT, name)
    mean, deviations = np.zeros(len(known)), np.ones(len(known))
    if given:
        seen = np.concatenate([frame.known[:, :given] for frame in training])
        mean[:given], deviations[:given] = seen.mean(0), seen.std(0)
    for name, deviation in zip(known, deviations, strict=True):
        if not deviation > 0:
            findings.add(UNINFORMATIVE, name)
    return scaling, (mean, deviations)


def _series(
    frame: Frame,
    edges: tuple[int, ...],
    scaling: tuple[float, float],
    ahead: Covariates,
    season: int,
) -> Series:
    mean, deviation = scaling
    standard = (frame.values[: edges[-1]] - mean) / deviation
    values, observed = filled(standard)
    known = (frame.known[: edges[-1]] - ahead[0]) / ahead[1]
    error = seasonal_error(standard[: edges[1]], season)
    return Series(frame.name, frame.start, edges, error, values.astype(np.float32), observed, known.astype(np.float32))


if __name__ == "__main__":
    shared.run_as_script(main)
