"""`unroll by-length RUN...`: how well texts were written from short sources and from long ones, run beside run.

A model that keeps its source in one vector should lose with the length, one with attention should not (Bahdanau, Cho
and Bengio 2015, figure 2).
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.arguments import Parser
from pipeline.errors import ConfigError, DataError
from pipeline.runs.run import find_run


def main(argv: list[str]) -> int:
    """Print a table.

    Raises:
        UserError: no such run, or one that has no written texts.
    """
    from pipeline.evaluation import text_scores
    from pipeline.evaluation.metrics import Score

    known = {
        name: kind for name, kind in vars(text_scores).items() if isinstance(kind, type) and issubclass(kind, Score)
    }
    known.pop("Score")
    parser = Parser(prog="unroll by-length", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="runs that `unroll test` measured on the same data")
    add("--groups", type=int, default=5, metavar="N", help="groups of about as many sources each (default: 5)")
    add("--score", choices=sorted(known), default="BLEU", help="default: BLEU")
    add("--split", default="test", help="which texts: those of `unroll test` (default), or validation")
    options = parser.parse_args(argv)
    if options.groups < 1:
        raise ConfigError(f"--groups {options.groups} must be at least 1")
    runs = {name: texts(find_run(name), options.split) for name in options.runs}
    score: Any = known[options.score]()
    print("\n".join(lengths_table(runs, options.groups, score)))
    return 0


def texts(run: Path, split: str) -> list[dict[str, Any]]:
    """What a run wrote from each source, the shortest first; a length is counted in words, or letters of a word.

    Raises:
        DataError: nothing was written, or from sources that are no texts.
    """
    file = run / f"written-{split}.jsonl"
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows = sorted(rows, key=lambda row: (len(row["source"].split()), len(row["source"]), row["row"]))
    except OSError as error:
        verb = {"test": "test"}.get(split, "validate")
        raise DataError(f"{run} holds no {file.name}: `unroll {verb} --run {run.name}` writes it") from error
    except (ValueError, KeyError) as error:
        raise DataError(f"{file} holds no texts with sources ({error!r})") from error
    return rows


def lengths_table(runs: dict[str, list[dict[str, Any]]], groups: int, score: Any) -> list[str]:
    """Lines of a Markdown table: a row for each group of sources, a column for each run.

    Raises:
        DataError: the runs did not write from the same sources.
    """
    first, *others = runs.values()
    if any([row["source"] for row in rows] != [row["source"] for row in first] for rows in others):
        raise DataError(f"{', '.join(runs)} were not measured on the same sources: test them on one dataset")
    groups = min(groups, len(first))
    edges = [len(first) * group // groups for group in range(groups + 1)]
    lines = [f"| words of a source | sources | {' | '.join(runs)} |", "|---" * (2 + len(runs)) + "|"]
    for begin, end in [*pairwise(edges), (0, len(first))]:
        lengths = [len(row["source"].split()) for row in first[begin:end]]
        span = f"{lengths[0]} to {lengths[-1]}" if (begin, end) != (0, len(first)) else "all"
        cells = [f"{value(rows[begin:end], score):.1f}" for rows in runs.values()]
        lines.append(f"| {span} | {end - begin} | {' | '.join(cells)} |")
    return lines


def value(rows: Sequence[dict[str, Any]], score: Any) -> float:
    """The score's first value."""
    found: dict[str, float] = score([row["text"] for row in rows], [row["references"] for row in rows])
    return next(iter(found.values()))
