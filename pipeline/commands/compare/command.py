"""`unroll compare RUN...`: runs side by side, as a table and as a page with curves and samples."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import Parser
from pipeline.commands.compare import page
from pipeline.commands.compare.rows import MISSING, Column, Entry, Group, cell, gather, is_best
from pipeline.commands.compare.seeds import together
from pipeline.errors import CheckpointError, DataError, UserError
from pipeline.files import write_durably
from pipeline.runs.run import RUNS, find_run

if TYPE_CHECKING:
    from rich.table import Table

ORDER = 5  # of the baseline's n-grams
ROOMY = 96  # columns of a terminal in which the whole table is readable
SPARED = ("tokens", "seconds", "flops")  # what is left out of narrower ones; the page has it


def main(argv: list[str]) -> int:
    """Compare runs; the exit code is 0 if at least one of them has something to compare.

    Raises:
        CheckpointError: none of the runs has logged anything.
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
        raise CheckpointError("nothing to compare: none of these runs has logged anything")
    home = home_of(options.runs)
    groups = together(entries)
    if not options.no_baseline:
        groups = [with_baseline(group, home / ".baselines") for group in groups]
    target = options.html or home / "compare.html"
    write_page(target, groups)
    if options.json:
        print(json.dumps(as_json(groups, target), indent=1))
    else:
        print_tables(groups)
        print(f"curves and samples: {target}")
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="unroll compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name under runs/, or path, of a run")
    parser.add_argument("--html", type=Path, metavar="PATH", help="where the page goes (compare.html beside the runs)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    parser.add_argument(
        "--no-baseline", action="store_true", help="leave out the counted 5-gram or linear forecast, made once"
    )
    return parser.parse_args(argv)


def print_notice(lines: list[str]) -> None:
    """Tell the user, on standard error so that the table can be piped."""
    for line in lines:
        print(f"unroll compare: {' '.join(line.split())}", file=sys.stderr)


def home_of(names: list[str]) -> Path:
    """The directory in which the first existing run lies."""
    for name in names:
        try:
            return find_run(name).parent
        except CheckpointError:
            continue
    return RUNS


def with_baseline(group: Group, cache: Path) -> Group:
    """The group with the counted n-gram or the linear forecast beside it, if its dataset can be opened."""
    if group.checksum is None or group.path is None:
        return group
    try:
        if group.horizon is not None:
            return replace(group, baseline=linear(group, Path(group.path), cache))
        figures = cached_baseline(Path(group.path), group.checksum, cache)
    except (UserError, OSError, ValueError, ArithmeticError, MemoryError) as error:
        print_notice([f"no baseline for {group.title}: {error}"])
        return group
    found = figures.get("validation", {})
    entry = Entry(
        name=f"{figures['order']}-gram",
        architecture="counted, Kneser-Ney",
        parameters=figures["ngrams"],
        tokens=figures["tokens"],
        perplexity=found.get("perplexity"),
        bits_per_byte=found.get("bits_per_byte"),
        tokens_per_second=figures["tokens"] / max(figures["seconds"], 1e-9),
        memory_gb=figures["memory_gb"],
        seconds=figures["seconds"],
    )
    return replace(group, baseline=entry)


def cached_baseline(path: Path, checksum: str, cache: Path) -> dict[str, Any]:
    """Figures of the counted n-gram on a dataset, counted once and then kept in the directory `cache`.

    Raises:
        DataError: the dataset is not there, or it is no longer the one that the runs were trained on.
    """
    kept = cache / f"{checksum}.json"
    try:
        figures: dict[str, Any] = json.loads(kept.read_text())
        if figures["order"] == ORDER:
            return figures
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not counted yet, or not readable: count
    from pipeline.dataset.manifest import Dataset
    from pipeline.models import kneser_ney

    dataset = Dataset.open(path)
    if dataset.checksum != checksum:
        raise DataError(f"{path} is not the dataset that these runs were trained on (its checksum differs)")
    if dataset.kind != "tokens":
        raise DataError(f"n-grams are counted of texts, and {path} is of kind {dataset.kind!r}")
    print_notice([f"counting {ORDER}-grams of {path}, once"])
    figures = {**kneser_ney.measure_baseline(dataset, ORDER), "tokens": dataset.splits["train"].tokens}
    try:
        _keep(kept, json.dumps(figures, indent=1))
    except OSError as error:
        print_notice([f"the baseline will be counted again: {error}"])
    return figures


def linear(group: Group, path: Path, cache: Path) -> Entry:
    """The linear forecast from the longest context among the runs, fitted once and then kept.

    Raises:
        DataError: the dataset is not there, or it is no longer the one that the runs were trained on.
    """
    context = max(entry.context or 1 for entry in group.entries)
    kept = cache / f"{group.checksum}-{context}-{group.horizon}.json"
    try:
        return Entry(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError):
        pass  # not fitted yet, or not readable: fit
    from pipeline.data.series import SeriesDataModule
    from pipeline.evaluation.forecast_baselines import linear_errors

    data = SeriesDataModule(path, context, group.horizon or 1)
    if data.dataset.checksum != group.checksum:
        raise DataError(f"{path} is not the dataset that these runs were trained on (its checksum differs)")
    found = linear_errors(data.samples("train"), data.samples("validation"))
    figures: dict[str, Any] = {
        "name": "linear",
        "architecture": "least squares",
        "parameters": (context + 1) * data.horizon,
        **found,
    }
    try:
        _keep(kept, json.dumps(figures))
    except OSError as error:
        print_notice([f"the baseline will be fitted again: {error}"])
    return Entry(**figures)


def _keep(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, lambda new: new.write_text(text, encoding="utf-8"))


def write_page(target: Path, groups: list[Group]) -> None:
    """Write the page with curves and samples.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        _keep(target, page.render(groups))
    except OSError as error:
        raise UserError(f"cannot write the page {target}: {error.strerror}; give another with --html") from error


def as_json(groups: list[Group], target: Path) -> dict[str, Any]:
    """All figures, for programs; null where a figure is missing."""

    def figures(entry: Entry, columns: tuple[Column, ...]) -> dict[str, Any]:
        seeds = {"runs": [one.name for one in entry.members], "interval": dict(entry.spread)} if entry.members else {}
        return {**{column.key: getattr(entry, column.key) for column in columns}, **seeds}

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
    """Print a table for each dataset."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    for group in groups:
        columns = [column for column in group.columns if console.width >= ROOMY or column.key not in SPARED]
        console.print(comparison_table(group, columns))
    console.print("* best of its column; quality is the best on the validation split")


def comparison_table(group: Group, columns: Sequence[Column] | None = None) -> "Table":
    """The table of one dataset; every cell is plain text, whatever a run is called."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(group.title), title_justify="left", box=box.SIMPLE_HEAD)
    grid.padding, grid.pad_edge = (0, 1, 0, 0), False
    columns = group.columns if columns is None else columns
    for column in columns:
        if column.is_number:  # never cut: where it is narrow, names are folded
            grid.add_column(column.title, justify="right", width=_narrowest(column, group))
        else:
            grid.add_column(column.title, overflow="fold")
    for entry in group.rows():
        cells = []
        for column in columns:
            best = is_best(column, entry, group)
            text = cell(column, entry) + ("*" if best else "")
            cells.append(Text(text, style="bold green" if best else "dim" if text == MISSING else ""))
        grid.add_row(*cells, style="italic" if entry is group.baseline else None)
    return grid


def _narrowest(column: Column, group: Group) -> int:
    """The width of a column in which neither a figure nor a word of its title is broken."""
    figures = [cell(column, entry) for entry in group.rows()]
    return max(*(len(word) for word in column.title.split()), *(len(figure) + 1 for figure in figures))
