"""`unroll diagnose RUN...`: measure the memory of trained models: gradient by lag, receptive field, gates, attention.

Legend: K lags.
"""

import argparse
import json
from collections.abc import Mapping
from itertools import pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments import Parser, figure_file, positive_integer
from pipeline.errors import ConfigError
from pipeline.runs.run import find_run

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.evaluation.diagnosis import Diagnosis, Maps

FILES = "diagnosis.json", "diagnosis.png"  # written to the directory of each run


def main(argv: list[str]) -> int:
    """Diagnose runs, write the results to their directories and print a comparison.

    Raises:
        UserError: a run does not exist, or its task has no loss per position.
    """
    options = _parser().parse_args(argv)
    runs = {name: find_run(name) for name in options.runs}
    from pipeline.evaluation.plots.diagnosis import diagnosis_picture
    from pipeline.evaluation.plots.figure import save

    found: dict[str, Diagnosis] = {}
    for name, run in runs.items():
        found[name], maps = _diagnose(run, options)
        about = {"checkpoint": options.checkpoint, "split": options.split, **found[name].as_json()}
        (run / FILES[0]).write_text(json.dumps(about, indent=1) + "\n")
        save(diagnosis_picture({name: found[name]}, maps), run / FILES[1])
    print("\n".join(diagnosis_table(found)))
    if options.picture:
        try:
            save(diagnosis_picture(found, {}), options.picture)
        except OSError as error:
            raise ConfigError(f"--picture={options.picture}: cannot be written ({error}). Give another file") from error
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="unroll diagnose", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="runs of language models, forecasters, policies or recall tasks")
    add("--checkpoint", default="best", metavar="best|last|PATH", help="checkpoint to load (default: best)")
    add("--split", default="validation", help="split to sample sequences from (default: validation)")
    add("--sequences", type=positive_integer, default=32, metavar="N", help="number of sequences (default: 32)")
    add("--context", type=positive_integer, metavar="N", help="length of a sequence (default: as in training)")
    add("--picture", type=figure_file, metavar="FILE.png", help="also plot all runs in one figure")
    return parser


def _diagnose(run: Path, options: argparse.Namespace) -> "tuple[Diagnosis, Maps]":
    """Return the diagnosis of a run, and the attention maps to plot."""
    import torch

    from pipeline.commands.fit import quieten
    from pipeline.evaluation.diagnosis import diagnose, spread_batch
    from pipeline.runs.load import load_model
    from pipeline.training.config import parse_config

    quieten()
    more = [] if options.context is None else [f"--data.init_args.context={options.context}"]
    _, data, _ = parse_config(["--run", str(run), *more]).build()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = load_model(run, options.checkpoint).to(device)
    try:
        return diagnose(task, spread_batch(data, options.split, options.sequences, device))
    except ValueError as error:  # such as a sequence that is too long for the network
        raise ConfigError(f"{run.name}: {error}") from error


def diagnosis_table(found: Mapping[str, "Diagnosis"]) -> list[str]:
    """Return the lines of Markdown tables: gradient and receptive field, then gates, then attention."""
    longest = max(len(one.gradient) for one in found.values())
    lags = [0, *takewhile(lambda lag: lag < longest, (2**power for power in range(30)))]
    lines = ["norm of the gradient of the loss with respect to the input k positions back, relative to k = 0:", ""]
    lines += _rows(["run", "at k = 0", *(f"k = {lag}" for lag in lags[1:])])
    for name, one in found.items():
        first = one.gradient[0]
        back = [f"{one.gradient[lag] / first:.2g}" if first and lag < len(one.gradient) else "" for lag in lags[1:]]
        lines.append(_row([name, f"{first:.3g}", *back]))
    lines += ["", *_rows(["run", "inputs", "receptive field", "95 % of the gradient within", "loss by quarter"])]
    for name, one in found.items():
        quarters = " ".join(f"{value:.3f}" for value in by_quarter(one.loss))
        lines.append(_row([name, f"{one.positions}", f"{one.field}", f"{one.memory} positions", quarters]))
    gates = [(name, gate, shares) for name, one in found.items() for gate, shares in one.gates.items()]
    if gates:
        lines += ["", *_rows(["run", "gate", "mean", "below 0.1", "above 0.9"])]
        for name, gate, shares in gates:
            cells = [f"{100 * shares[side]:.1f} %" for side in ("low", "high")]
            lines.append(_row([name, gate, f"{shares['mean']:.2f}", *cells]))
    looks = [(name, layer, each) for name, one in found.items() for layer, each in one.attention.items()]
    if looks:
        lines += [
            "",
            *_rows(["run", "attention", "entropy by head (nats)", "entropy if uniform", "mean distance by head"]),
        ]
        for name, layer, each in looks:
            entropy, distance = (" ".join(f"{v:.2f}" for v in each[what]) for what in ("entropy", "distance"))
            lines.append(_row([name, layer, entropy, f"{each['uniform'][0]:.2f}", distance]))
    return lines


def by_quarter(loss: list[float | None]) -> list[float]:
    """Return the mean loss per quarter of the positions, without quarters in which nothing is predicted."""
    edges = [len(loss) * quarter // 4 for quarter in range(5)]
    parts = [[v for v in loss[a:b] if v is not None] for a, b in pairwise(edges)]
    return [sum(part) / len(part) for part in parts if part]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(heads: list[str]) -> list[str]:
    return [_row(heads), "|---" * len(heads) + "|"]
