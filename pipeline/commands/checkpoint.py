"""`unroll checkpoint verify|diff|export|convert`: look at checkpoints, and take models out of runs.

A checkpoint is the same thing for every strategy and every number of processes, so nothing has to be
converted to go on elsewhere; `convert` is for other programs.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.arguments import Parser
from pipeline.errors import CheckpointError
from pipeline.runs.journal import JournalWriter, plain
from pipeline.runs.load import choose_checkpoint
from pipeline.runs.run import Run, find_run

if TYPE_CHECKING:  # torch takes seconds to import: only once there is something to do
    from pipeline.distributed.checkpoint.diff import Difference
    from pipeline.distributed.checkpoint.directory import Manifest


def main(argv: list[str]) -> int:
    """The verb; what it returns is told by each part.

    Raises:
        UserError: no such run, checkpoint or file.
    """
    arguments = parser().parse_args(argv)
    work: Callable[[argparse.Namespace], int] = arguments.work
    return work(arguments)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="unroll checkpoint", description="Look at checkpoints; take models out.")
    verbs = result.add_subparsers(metavar="verify|diff|export|convert", required=True)

    def verb(work: Callable[[argparse.Namespace], int], name: str, about: str) -> Callable[..., Any]:
        found = verbs.add_parser(name, help=about, description=about)
        found.set_defaults(work=work)
        return found.add_argument

    add = verb(verify_checkpoints, "verify", "is every file what was written? exit code 4 if not")
    add("target", metavar="PATH|RUN", help="a checkpoint, or a run, whose checkpoints are all verified")
    add("--json", action="store_true", help="one JSON object a checkpoint")
    add = verb(diff, "diff", "what differs between two checkpoints: exit code 0 for nothing, 1 for something")
    add("one", metavar="A", help="a checkpoint, or a run, of which the last is taken")
    add("two", metavar="B", help="another")
    add("--json", action="store_true", help="everything, equal or not, as JSON")
    add = verb(export, "export", "weights, config, tokenizer: a directory that LanguageModel.from_pretrained loads")
    add("target", metavar="RUN|PATH", help="a run, or one of its checkpoints")
    add("--output", type=Path, required=True, metavar="DIR", help="made here")
    add("--which", choices=["best", "last"], default="best", help="of a run's checkpoints (default: best)")
    add = verb(convert, "convert", "a checkpoint as one file for other programs")
    add("target", metavar="PATH|RUN", help="a checkpoint, or a run, of which the last is taken")
    add("--output", type=Path, required=True, metavar="FILE", help=".ckpt or .pt: everything; .safetensors: weights")
    return result


def verify_checkpoints(arguments: argparse.Namespace) -> int:
    """Tell of each checkpoint whether it is whole; 4 if any is not."""
    damaged = 0
    for directory in checkpoints_of(arguments.target):
        found = inspect_checkpoint(directory)
        damaged += found["damage"] is not None
        print(json.dumps(found) if arguments.json else _line(found), flush=True)
    return CheckpointError.exit_code if damaged else 0


def inspect_checkpoint(directory: Path) -> dict[str, Any]:
    """Step, size, metrics and damage (None for a whole one) of a checkpoint, every byte of which is read."""
    from pipeline.distributed.checkpoint import directory as checkpoint

    found: dict[str, Any] = {"checkpoint": str(directory), "damage": None}
    try:
        manifest = checkpoint.verify_checkpoint(directory)
        checkpoint.read_state(directory)  # hashes prove who wrote it last, not what it holds
    except CheckpointError as error:
        return {**found, "damage": str(error)}
    size = sum(file["bytes"] for file in manifest["files"].values())
    return {**found, "step": manifest["step"], "bytes": size, "metrics": manifest.get("metrics", {})}


def _line(found: dict[str, Any]) -> str:
    if found["damage"] is not None:
        return f"{found['checkpoint']}: DAMAGED: {found['damage']}"
    metrics = "".join(f", {name} {value:.4f}" for name, value in found["metrics"].items() if name.endswith("/loss"))
    return f"{found['checkpoint']}: whole, step {found['step']}, {found['bytes'] / 1e6:.2f} MB{metrics}"


def diff(arguments: argparse.Namespace) -> int:
    """Compare two checkpoints; 1 if they differ, as diff(1) does."""
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
    from rich.console import Console
    from rich.table import Table

    print(f"A {places[0]}\nB {places[1]}")
    told = [row for row in rows if not row.equal and not row.name.startswith("loops/")]
    if told:
        table = Table(box=None, pad_edge=False)
        for heading in ("tensor or value", "A and B", "largest |a - b|", "relative"):
            table.add_column(heading, justify="right" if heading.startswith(("largest", "rel")) else "left")
        for row in told:
            numbers = ["" if number is None else f"{number:.3g}" for number in (row.absolute, row.relative)]
            table.add_row(row.name, row.what, *numbers)
        Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False).print(table)
    count = Counter((row.is_tensor, row.equal) for row in rows)
    print(f"tensors: {count[True, True]} equal in every bit, {count[True, False]} not")
    print(f"values:  {count[False, True]} equal, {count[False, False]} not (Lightning's loop counters: see --json)")


def export(arguments: argparse.Namespace) -> int:
    """Write an exported model."""
    from pipeline.commands.generate.command import example
    from pipeline.distributed.checkpoint import directory as checkpoint
    from pipeline.runs import export as exported

    run, which = _run_and_checkpoint(arguments.target, arguments.which)
    chosen = exported.write_export(arguments.output, run, which, example)
    _note(run, arguments.output, checkpoint.verify_checkpoint(chosen))
    print(f"{chosen} is exported to {arguments.output}")
    return 0


def _note(run: Path, model: Path, manifest: "Manifest") -> None:
    """Have the run's journal tell of an exported model: Weights & Biases shows it as the run's."""
    number = len(Run(run).record["attempts"])
    metrics = {name: plain(value) for name, value in manifest.get("metrics", {}).items()}
    fields = {"path": str(model.resolve()), "metrics": metrics}
    try:
        journal = JournalWriter(run)
        journal.event("model", number, manifest["step"], 0, 0.0, fields)
        journal.close()
    except OSError as error:  # somebody else's run may be read only
        print(f"{run} is not told of it: {error}", file=sys.stderr)


def _run_and_checkpoint(target: str, which: str) -> tuple[Path, str]:
    if _is_checkpoint(target):
        return find_run(str(Path(target).resolve().parent.parent)), target
    return find_run(target), which


def convert(arguments: argparse.Namespace) -> int:
    """Write a checkpoint to one file."""
    from pipeline.distributed.checkpoint import single_file

    place = last_of(arguments.target)
    single_file.write_single_file(place, arguments.output)
    print(f"{place} is written to {arguments.output}")
    return 0


def last_of(name: str) -> Path:
    """The checkpoint that is named, or the last of the run that is named; it verifies.

    Raises:
        CheckpointError: there is none, or the one named is damaged.
    """
    return choose_checkpoint(Path(name), name) if _is_checkpoint(name) else choose_checkpoint(find_run(name), "last")


def checkpoints_of(name: str) -> list[Path]:
    """The checkpoint that is named, or all of the run that is named, the latest first.

    Raises:
        CheckpointError: there is no such run, or it has no checkpoint yet.
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
