"""Renders the pages of docs/benchmarks from the JSON files that the benchmarks wrote.

    python tests/benchmarks/page.py [--check]

`--check` writes nothing; it prints the pages that differ from their files and the pages with tables that have no file.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import results
from results import ROOT

sys.path.insert(0, str(ROOT))

FOLDER = ROOT / "docs" / "benchmarks"


def rendered(file: Path) -> str:
    """The page of a JSON file."""
    found = json.loads(file.read_text())
    if file.stem == "gpu":
        import gpu_report

        return gpu_report.page(found)
    if file.stem == "chaos":
        from tests.chaos import report

        return report.page(found)
    return results.page(found, results.TITLES[file.stem])


def different(folder: Path) -> Iterator[Path]:
    """Pages that are not what their files give, and pages with tables of numbers that have no file."""
    for file in sorted(folder.glob("*.json")):
        page = file.with_suffix(".md")
        if not page.exists() or page.read_text() != rendered(file):
            yield page
    for page in sorted(folder.glob("*.md")):
        if not page.with_suffix(".json").exists() and has_numbers(page.read_text()):
            yield page


def has_numbers(text: str) -> bool:
    """Whether a cell of a table is a number."""
    rows = [line.strip("| \n").split("|") for line in text.splitlines() if line.startswith("|")]
    return any(cell.strip(" %*").replace(",", "").replace(".", "").isdigit() for row in rows for cell in row)


def main() -> int:
    """Write the pages, or print those that differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        found = list(different(FOLDER))
        for page in found:
            print(f"{page.relative_to(ROOT)}: not what its JSON file gives; run python tests/benchmarks/page.py")
        return int(bool(found))
    for file in FOLDER.glob("*.json"):
        file.with_suffix(".md").write_text(rendered(file))
    return 0


if __name__ == "__main__":
    sys.exit(main())
