"""Tables of published results and ours: in the terminal, in docs/results/published.md and in the README.

    python -m pipeline.commands.reproduce.page

The command replaces what is between the markers of the two pages of a checkout; a test compares it with the files.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.commands.reproduce.recipe import Recipe, recipes
from pipeline.commands.reproduce.result import Result, read_results
from pipeline.training.shipped_configs import CONFIGS

BEGIN, END = "<!-- begin: python -m pipeline.commands.reproduce.page -->", "<!-- end -->"
PAGE, README, RESULTS = Path("docs/results/published.md"), Path("README.md"), Path("docs/results/published")
ROWS = 10  # of the README
SHORT = ("task", "published", "ours", "recipe")  # columns of the README
Row = dict[str, str]


def main(root: Path = CONFIGS.parent) -> int:
    """Write the generated parts of the two pages of a checkout."""
    for file, text in pages(root):
        file.write_text(text, encoding="utf-8")
    return 0


def pages(root: Path) -> Iterator[tuple[Path, str]]:
    """Return the two pages of a checkout and their contents."""
    known, results = [*recipes(root / CONFIGS.name / "published")], read_results(root / RESULTS)
    rows = published_rows(known, results)
    ordered = [recipe for recipe in known if recipe.name in results]
    details = [line for recipe in ordered for line in _details(recipe, results[recipe.name])]
    first = [{name: row[name] for name in SHORT} for row in rows[:ROWS]]
    for file, lines in ((PAGE, [*markdown(rows), *details]), (README, markdown(first))):
        yield root / file, replaced((root / file).read_text(encoding="utf-8"), lines)


def published_rows(known: Sequence[Recipe], results: Mapping[str, Result]) -> list[Row]:
    """Return a row per recipe, those that were run first."""
    ordered = sorted(known, key=lambda recipe: recipe.name not in results)
    return [_row(recipe, results.get(recipe.name)) for recipe in ordered]


def _row(recipe: Recipe, result: Result | None) -> Row:
    low, high = recipe.band
    return {
        "task": recipe.title,
        "published": f"{recipe.published:.4g}",
        "band": f"{low:g} to {high:g}",
        "ours": _ours(recipe, result) if result else "not run yet",
        "expected cost": cost(recipe),
        "recipe": f"`{recipe.name}`",
    }


def _ours(recipe: Recipe, result: Result) -> str:
    seeds = f" ({len(result['seeds'])} seeds)" if len(result["seeds"]) > 1 else ""
    outside = "" if recipe.contains(result["mean"]) else ", outside the band"
    return f"{result['mean']:.4g}{seeds}{outside}"


def cost(recipe: Recipe) -> str:
    """Return the expected cost of one seed."""
    if recipe.gpu_minutes is not None:
        return f"{recipe.gpu_minutes:g} GPU-minutes"
    return f"{recipe.cost:g} core-minutes"


def _details(recipe: Recipe, result: Result) -> Iterator[str]:
    """Return the part of the page about one result."""
    yield from ("", f"### {recipe.title}", "", f"{recipe.citation}. {recipe.note}".rstrip(), "")
    yield f"`{result['command']}`, {result['date']}: {verdict(recipe, result)}"
    yield ""
    for seed, each in result["seeds"].items():
        steps = f", {each['steps']:,} steps" if "steps" in each else ""
        scores = ", ".join(f"{name} {_number(value)}" for name, value in each["scores"].items())
        yield f"- Seed {seed}: {each['parameters']:,} parameters{steps}; {each['machine']}; {each['commit']}. {scores}"
        if points := each.get("points"):
            passed = [f"{value:.4g} after {int(step):,} steps" for step, value in points.items()]
            yield f"  On the way: {', '.join(passed)}."


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def verdict(recipe: Recipe, result: Result) -> str:
    """Return the comparison with the published figure, in words."""
    low, high = recipe.band
    place = "inside" if recipe.contains(result["mean"]) else "outside"
    return (
        f"{recipe.metric} {result['mean']:.4g}, published {recipe.published:.4g}: "
        f"{place} the band from {low:g} to {high:g}"
    )


def markdown(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table in Markdown."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *(list(row.values()) for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def replaced(text: str, lines: Sequence[str]) -> str:
    """Return a text with other lines between its two markers."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([before + BEGIN, *lines, END + after])


def print_table(known: Sequence[Recipe], results: Mapping[str, Result]) -> None:
    """Print the table in the terminal."""
    from rich import box
    from rich.table import Table

    from pipeline.commands.console import TableConsole

    rows = published_rows(known, results)
    grid = Table(box=box.SIMPLE_HEAD)
    for name in rows[0]:
        grid.add_column(name)
    for row in rows:
        grid.add_row(*(cell.strip("`") for cell in row.values()))
    TableConsole().print(grid)


if __name__ == "__main__":
    sys.exit(main())
