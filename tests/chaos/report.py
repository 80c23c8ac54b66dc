"""The table of a chaos test, as JSON and as a page of the documentation."""

import json
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.home import ROOT
from tests.chaos.injuries import INJURIES, MOMENTS

Results = dict[str, list[dict[str, Any]]]
FAULTS = (
    "hangs",
    "failed starts",
    "processes left over",
    "runs with different weights",
    "rows missing",
    "rows twice",
    "rows different",
)


def write(results: Results, seed: int, kills: int, seconds: float, output: Path | None) -> int:
    """Print the table, write it to a JSON file with a page beside it, and return the number of faults."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "seed": seed,
        "minutes": round(seconds / 60, 1),
    }
    table = about | {"kills": kills, "setups": {name: counted(runs) for name, runs in results.items()}}
    text = page(table)
    print(text)
    if output is not None:
        output.write_text(json.dumps(table, indent=1) + "\n")
        output.with_suffix(".md").write_text(text)
    return sum(table["setups"][name][fault] for name in results for fault in FAULTS)  # type: ignore[index]


def counted(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of one setup."""
    hurts = [hurt for run in runs for hurt in run["hurts"]]
    return {
        "injuries": Counter(hurt[0] for hurt in hurts),
        "moments": Counter(hurt[1] for hurt in hurts),
        "runs": len(runs),
        "starts": sum(run["attempts"] for run in runs),
        "hangs": sum(len(run["hangs"]) for run in runs),
        "failed starts": sum(len(run["failures"]) for run in runs),
        "processes left over": sum(len(run["leftovers"]) for run in runs),
        "runs with different weights": sum(bool(run["different"]) for run in runs),
        **{f"rows {what}": sum(run["rows"].get(what, 0) for run in runs) for what in ("missing", "twice", "different")},
    }


def page(table: dict[str, Any]) -> str:
    """Return the table as a page for reading."""
    setups = table["setups"]
    total = sum(sum(each["injuries"].values()) for each in setups.values())
    lines = [
        "# Chaos test",
        "",
        "Written by `make chaos` (tests/chaos). Tiny runs are hurt at random moments and started again by the same",
        "command until they finish. Each finished run is compared with an undisturbed one: weights, optimizer and",
        "carried state in every bit, and the rows of training and validation that the tracking server received.",
        "",
        f"{total} injuries in {table['minutes']} minutes, seed {table['seed']} ({table['date']}, {table['commit']}):",
        "",
        f"| | {' | '.join(setups)} |",
        f"|---{'|---' * len(setups)}|",
    ]
    names = [*INJURIES, *sorted({name for each in setups.values() for name in each["injuries"]} - INJURIES.keys())]
    lines += [row(name, [each["injuries"].get(name, 0) for each in setups.values()]) for name in names]
    lines += [row(f"during: {name}", [each["moments"].get(name, 0) for each in setups.values()]) for name in MOMENTS]
    lines += [row(name, [each[name] for each in setups.values()]) for name in ("runs", "starts", *FAULTS)]
    return "\n".join(lines) + "\n"


def row(name: str, counts: list[int]) -> str:
    """Return a row of the table."""
    return f"| {name} | {' | '.join(map(str, counts))} |"
