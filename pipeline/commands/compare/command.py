"""`unroll compare RUN...`: compare runs in a table and in an HTML page with curves and samples."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments import Parser
from pipeline.commands.compare import page
from pipeline.commands.compare.baselines import keep_text, print_notice, with_baseline
from pipeline.commands.compare.columns import MISSING, Column
from pipeline.commands.compare.rows import Entry, Group, cell, gather, is_best
from pipeline.commands.compare.seeds import together
from pipeline.errors import CheckpointError, UserError
from pipeline.runs.run import RUNS, find_run

if TYPE_CHECKING:
    from rich.table import Table

OMITTED = ("flops", "tokens", "seconds", "memory_gb", "tokens_per_second", "parameters", "architecture")
"""Columns that a narrow terminal omits, the first ones first, then qualities from the last; the page shows them."""
GAP = 2  # columns of the terminal between two columns of the table
NAME = 24  # characters of a name or an architecture that are not folded


def main(argv: list[str]) -> int:
    """Compare runs; return 0 if at least one of them has logged metrics.

    Raises:
        CheckpointError: none of the runs has logged metrics.
        UserError: the page cannot be written.
    """
    options = parse_arguments(argv)
    entries, lines = [], []
    for name in dict.fromkeys(options.runs):
        entry, troubles = gather(name)
        entries.append(entry)
        lines += troubles
    print_notice(lines)
    if not any(entry.journal.rows for entry in entries):
        raise CheckpointError("nothing to compare: none of these runs has logged metrics. Train one of them first")
    home = home_of(options.runs)
    groups = together(entries)
    if not options.no_baseline:
        groups = [with_baseline(group, home / ".baselines") for group in groups]
    target = options.html or home / page_name(options.runs)
    write_page(target, groups)
    if options.json:
        print(json.dumps(as_json(groups, target), indent=1))
    else:
        print_tables(groups)
        print(f"curves and samples: {target}")
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = Parser(prog="unroll compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a run under runs/, or its path")
    parser.add_argument(
        "--html", type=Path, metavar="PATH", help="write the page to PATH (default: compare-RUNS.html beside the runs)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--no-baseline",
        action="store_true",
        help="omit the baseline (Kneser-Ney 5-gram, linear forecast or counted keys)",
    )
    return parser.parse_args(argv)


def page_name(names: Sequence[str]) -> str:
    """Return the default file name of the page, which differs between selections of runs."""
    joined = "-".join(dict.fromkeys(Path(name).name for name in names))
    if len(joined) > 100:
        joined = f"{joined[:80]}-{hashlib.sha256(joined.encode()).hexdigest()[:8]}"
    return f"compare-{joined}.html"


def home_of(names: list[str]) -> Path:
    """Return the parent directory of the first run that exists."""
    for name in names:
        try:
            return find_run(name).parent
        except CheckpointError:
            continue
    return RUNS


def write_page(target: Path, groups: list[Group]) -> None:
    """Write the page with curves and samples.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        keep_text(target, page.render(groups))
    except OSError as error:
        raise UserError(
            f"{target}: the page cannot be written: {error.strerror}. Give another path with --html"
        ) from error


def as_json(groups: list[Group], target: Path) -> dict[str, object]:
    """Return all figures as JSON values; None where a figure is missing."""

    def figures(entry: Entry, columns: tuple[Column, ...]) -> dict[str, object]:
        seeds = {"runs": [one.name for one in entry.members], "interval": dict(entry.spread)} if entry.members else {}
        return {**{column.key: entry.figure(column.key) for column in columns}, **seeds}

    return {
        "page": str(target),
        "datasets": [
            {
                "checksum": group.checksum,
                "path": group.path,
                "runs": [figures(entry, group.columns) for entry in group.entries],
                "baseline": figures(group.baseline, group.columns) if group.baseline else None,
            }
            for group in groups
        ],
    }


def print_tables(groups: list[Group]) -> None:
    """Print a table per dataset."""
    from pipeline.commands.console import TableConsole

    console = TableConsole()
    for group in groups:
        console.print(comparison_table(group, fitting(group, console.width)))
    console.print("* best value of its column; quality: best validation of each run")


def fitting(group: Group, width: int) -> list[Column]:
    """Return the columns that a terminal shows without cutting a figure or folding a short name."""
    columns = list(group.columns)
    qualities = [column.key for column in columns if column.is_quality]
    for key in (*OMITTED, *reversed(qualities[1:])):
        if sum(_narrowest(column, group) + GAP for column in columns) <= width:
            break
        columns = [column for column in columns if column.key != key]
    return columns


def comparison_table(group: Group, columns: Sequence[Column] | None = None) -> "Table":
    """Return the table of one dataset; cells are plain text, so that run names are not parsed as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(group.title), title_justify="left", box=box.SIMPLE_HEAD)
    grid.padding, grid.pad_edge = (0, 1, 0, 0), False
    columns = group.columns if columns is None else columns
    for column in columns:
        if column.is_number:  # never truncated: narrow terminals wrap names instead
            grid.add_column(column.title, justify="right", width=_narrowest(column, group))
        else:
            grid.add_column(column.title, overflow="fold", min_width=_narrowest(column, group))
    for entry in group.rows():
        cells = []
        for column in columns:
            best = is_best(column, entry, group)
            text = cell(column, entry) + ("*" if best else "")
            cells.append(Text(text, style="bold green" if best else "dim" if text == MISSING else ""))
        grid.add_row(*cells, style="italic" if entry is group.baseline else None)
    return grid


def _narrowest(column: Column, group: Group) -> int:
    """Return the least width that breaks neither a figure nor a word of the title, nor the start of a name."""
    cells = [len(cell(column, entry)) + 1 if column.is_number else len(cell(column, entry)) for entry in group.rows()]
    widest = max(*map(len, column.title.split()), *cells)
    return widest if column.is_number else min(NAME, widest)
