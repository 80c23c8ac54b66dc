"""`unroll checkpoint verify|diff|export|convert`: verify and compare checkpoints, export models.

The format of a checkpoint does not depend on the strategy or the number of processes: no conversion is needed to
resume elsewhere. `convert` is for other programs.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipeline.arguments import Parser
from pipeline.errors import CheckpointError
from pipeline.runs.journal import JournalWriter, plain
from pipeline.runs.load import MODEL_CONFIG, choose_checkpoint, model_config
from pipeline.runs.run import Run, find_run

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.distributed.checkpoint.diff import Difference


class CheckpointReport(TypedDict, total=False):
    """One line of `unroll checkpoint verify --json`; a damaged checkpoint has no step, bytes and metrics."""

    checkpoint: str
    damage: str | None
    step: int
    bytes: int
    metrics: dict[str, float]


def main(argv: list[str]) -> int:
    """Run one of the subcommands and return its exit code.

    Raises:
        UserError: a run, checkpoint or file does not exist.
    """
    arguments = parser().parse_args(argv)
    work: Callable[[argparse.Namespace], int] = arguments.work
    return work(arguments)


def parser() -> argparse.ArgumentParser:
    """Return the command line parser."""
    result = Parser(prog="unroll checkpoint", description="Verify, compare, export or convert checkpoints.")
    verbs = result.add_subparsers(metavar="verify|diff|export|convert", required=True)

    def verb(work: Callable[[argparse.Namespace], int], name: str, about: str) -> Callable[..., argparse.Action]:
        found = verbs.add_parser(name, help=about, description=about)
        found.set_defaults(work=work)
        return found.add_argument

    add = verb(verify_checkpoints, "verify", "check every file against its hash; exit code 4 if any is damaged")
    add("target", metavar="PATH|RUN", help="a checkpoint, or a run (verifies all its checkpoints)")
    add("--json", action="store_true", help="print one JSON object per checkpoint")
    add = verb(diff, "diff", "compare two checkpoints; exit code 0 if equal, 1 if not")
    add("one", metavar="A", help="a checkpoint, or a run (uses its last checkpoint)")
    add("two", metavar="B", help="the other checkpoint or run")
    add("--json", action="store_true", help="print all tensors and values as JSON, equal ones included")
    add = verb(export, "export", "write weights, config and tokenizer for LanguageModel.from_pretrained")
    add("target", metavar="RUN|PATH", help="a run, or one of its checkpoints")
    add("--output", type=Path, required=True, metavar="DIR", help="directory to create")
    add("--which", choices=["best", "last"], default="best", help="checkpoint of the run (default: best)")
    add = verb(convert, "convert", "write a checkpoint as one file for other programs")
    add("target", metavar="PATH|RUN", help="a checkpoint, or a run (uses its last checkpoint)")
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help=".ckpt or .pt: full state; .safetensors: weights only",
    )
    return result


def verify_checkpoints(arguments: argparse.Namespace) -> int:
    """Print a line per checkpoint; return 4 if any is damaged."""
    damaged = 0
    for directory in checkpoints_of(arguments.target):
        found = inspect_checkpoint(directory)
        damaged += found["damage"] is not None
        print(json.dumps(found) if arguments.json else _line(found), flush=True)
    return CheckpointError.exit_code if damaged else 0


def inspect_checkpoint(directory: Path) -> CheckpointReport:
    """Read a whole checkpoint and return its step, size, metrics and damage (None if intact)."""
    from pipeline.distributed.checkpoint import directory as checkpoint

    try:
        manifest = checkpoint.verify_checkpoint(directory)
        checkpoint.read_state(directory)  # a valid hash does not prove that the content can be read
    except CheckpointError as error:
        return {"checkpoint": str(directory), "damage": str(error)}
    return {
        "checkpoint": str(directory),
        "damage": None,
        "step": manifest["step"],
        "bytes": sum(file["bytes"] for file in manifest["files"].values()),
        "metrics": manifest.get("metrics", {}),
    }


def _line(found: CheckpointReport) -> str:
    if found["damage"] is not None:
        return f"{found['checkpoint']}: DAMAGED: {found['damage']}"
    metrics = "".join(f", {name} {value:.4f}" for name, value in found["metrics"].items() if name.endswith("/loss"))
    return f"{found['checkpoint']}: intact, step {found['step']}, {found['bytes'] / 1e6:.2f} MB{metrics}"


def diff(arguments: argparse.Namespace) -> int:
    """Compare two checkpoints; return 1 if they differ, as diff(1) does."""
    from pipeline.distributed.checkpoint import directory as checkpoint
    from pipeline.distributed.checkpoint.diff import compare

    places = [last_of(name) for name in (arguments.one, arguments.two)]
    one, two = (checkpoint.read_state(place) for place in places)
    rows = compare(one, two)
    if arguments.json:
        print(json.dumps([{**row._asdict(), "equal": row.equal} for row in rows], indent=1))
    else:
        _show(rows, places)
    return 0 if all(row.equal for row in rows) else 1


def _show(rows: "list[Difference]", places: list[Path]) -> None:
    from rich.table import Table

    from pipeline.commands.console import TableConsole

    print(f"A {places[0]}\nB {places[1]}")
    shown = [row for row in rows if not row.equal and not row.name.startswith("loops/")]
    if shown:
        table = Table(box=None, pad_edge=False)
        for heading in ("tensor or value", "A and B", "largest |a - b|", "relative"):
            table.add_column(heading, justify="right" if heading.startswith(("largest", "rel")) else "left")
        for row in shown:
            numbers = ["" if number is None else f"{number:.3g}" for number in (row.absolute, row.relative)]
            table.add_row(row.name, row.what, *numbers)
        TableConsole().print(table)
    count = Counter((row.is_tensor, row.equal) for row in rows)
    print(f"tensors: {count[True, True]} bitwise equal, {count[True, False]} different")
    print(
        f"values:  {count[False, True]} equal, {count[False, False]} different (--json lists Lightning's loop counters)"
    )


def export(arguments: argparse.Namespace) -> int:
    """Export a model to a directory."""
    from pipeline.commands.generate.command import example
    from pipeline.distributed.checkpoint import directory as checkpoint
    from pipeline.runs import export as exported
    from pipeline.runs.match import check_use

    run, which = _run_and_checkpoint(arguments.target, arguments.which)
    check_use(Run(run))
    chosen = exported.write_export(arguments.output, run, which, example)
    manifest = checkpoint.verify_checkpoint(chosen)
    _note(run, arguments.output, manifest["step"], manifest.get("metrics", {}))
    print(f"exported {chosen} to {arguments.output}")
    return 0


def _note(run: Path, model: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Record an exported model in the run's journal, so that Weights & Biases shows it with the run."""
    number = len(Run(run).record["attempts"])
    fields = {"path": str(model.resolve()), "metrics": {name: plain(value) for name, value in metrics.items()}}
    try:
        journal = JournalWriter(run)
        journal.event("model", number, step, 0, 0.0, fields)
        journal.close()
    except OSError as error:  # another user's run may be read-only
        print(f"unroll: warning: the export is not recorded in {run}: {error}", file=sys.stderr)


def _run_and_checkpoint(target: str, which: str) -> tuple[Path, str]:
    if _is_checkpoint(target):
        return find_run(str(Path(target).resolve().parent.parent)), target
    return find_run(target), which


def convert(arguments: argparse.Namespace) -> int:
    """Write a checkpoint to one file."""
    from pipeline.distributed.checkpoint import single_file

    place = last_of(arguments.target)
    single_file.write_single_file(place, arguments.output, {MODEL_CONFIG: model_config(place)})
    print(f"wrote {place} to {arguments.output}")
    return 0


def last_of(name: str) -> Path:
    """Return the named checkpoint, or the last checkpoint of the named run; it is verified.

    Raises:
        CheckpointError: there is none, or the named one is damaged.
    """
    return choose_checkpoint(Path(name), name) if _is_checkpoint(name) else choose_checkpoint(find_run(name), "last")


def checkpoints_of(name: str) -> list[Path]:
    """Return the named checkpoint, or all checkpoints of the named run, the latest first.

    Raises:
        CheckpointError: the run does not exist, or has no checkpoint yet.
    """
    from pipeline.distributed.checkpoint import directory as checkpoint

    if _is_checkpoint(name):
        return [Path(name)]
    run = find_run(name)
    found = checkpoint.newest_first(run / "checkpoints")
    if not found:
        raise CheckpointError(f"run {run.name} has no checkpoint yet")
    return found


def _is_checkpoint(name: str) -> bool:
    return Path(name).is_dir() and Path(name).name.startswith("step-")
