"""Results of the CPU benchmarks: a JSON file of tables, and the page of the documentation that shows it.

{"fit": {"title": ..., "about": ..., "command": ..., "date": ..., "commit": ..., "machine": ..., "load": ...,
         "rows": [{"": "LSTM", "ratio": 0.99}, ...]}, ...}
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUIET = 0.5  # processes that wait for a core, beside the benchmark itself, before its numbers are worthless
TITLES = {"cpu": "On the CPU", "peers": "Beside other libraries"}  # of the pages, by file
Row = dict[str, Any]


class Table:
    """A table of results, printed and stored row by row: an interrupted benchmark keeps what it found.

    Args:
        name: key in the file.
        title: heading on the page.
        about: what is measured, in a sentence or two.
        output: the JSON file; None only prints.
    """

    def __init__(self, name: str, title: str, about: str, output: Path | None) -> None:
        self.name, self.output = name, output
        command = shlex.join(["python", f"tests/benchmarks/{Path(sys.argv[0]).name}", *_without_places(sys.argv[1:])])
        self.content: Row = {"title": title, "about": about, "command": command, **circumstances(), "rows": []}
        if self.content["load"] > QUIET:
            print(f"load average {self.content['load']}: this machine is not quiet, the numbers are preliminary")

    def add(self, **row: Any) -> None:
        """Print a row and store it; underscores of a name are spaces in the table."""
        row = {name.replace("_", " ").strip(): value for name, value in row.items()}
        self.content["rows"].append(row)
        print("; ".join(f"{name} {shown(value)}".strip() for name, value in row.items()), flush=True)
        if self.output is not None:
            tables = json.loads(self.output.read_text()) if self.output.exists() else {}
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self.output.write_text(json.dumps(tables | {self.name: self.content}, indent=1) + "\n")
            self.output.with_suffix(".md").write_text(
                page(json.loads(self.output.read_text()), TITLES.get(self.output.stem, "Results"))
            )


def add_output(parser: argparse.ArgumentParser, name: str = "cpu") -> None:
    """Add the option `--output`."""
    described = f"store the results in this file and in a page beside it, such as docs/benchmarks/{name}.json"
    parser.add_argument("--output", type=Path, metavar="FILE.json", help=described)


def _without_places(arguments: list[str]) -> list[str]:
    """The arguments without `--output FILE` and `--environments DIR`, which change no result."""
    places = ("--output", "--environments")
    left = [each for each in arguments if not each.startswith(tuple(f"{place}=" for place in places))]
    for place in places:
        at = left.index(place) if place in left else len(left)
        left = left[:at] + left[at + 2 :]
    return left


@cache
def circumstances() -> Row:
    """When, of which commit and on what machine something is measured, and how busy the machine was before it."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": os.environ.get("UNROLL_COMMIT") or commit(),
        "machine": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "load": round(float(os.environ.get("UNROLL_LOAD") or os.getloadavg()[0]), 2),
    }


def commit() -> str:
    """The commit that is measured; a + where files differ from it."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"


def processor() -> str:
    """The name of the processor."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def page(tables: dict[str, Row], title: str) -> str:
    """The tables as a page for reading."""
    lines = [
        f"# {title}",
        "",
        "Each table was written by its command; the load is the average before it.",
    ]
    for table in tables.values():
        rows = table["rows"]
        names = list(dict.fromkeys(name for row in rows for name in row))
        busy = "" if table["load"] <= QUIET else ": not quiet, preliminary"
        lines += ["", f"## {table['title']}", "", table["about"], ""]
        lines += [
            f"`{table['command']}`: {table['date']}, {table['commit']}, {table['machine']}, load {table['load']}{busy}."
        ]
        lines += ["", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
        lines += [f"| {' | '.join(shown(row.get(name, '')) for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A number with four digits or all before the point; anything else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return ", ".join(value) if isinstance(value, list) else str(value)
