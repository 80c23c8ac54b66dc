"""`unroll by-length RUN...`: compare scores of generated texts by the length of their sources.

A model that encodes its source in one vector should degrade with length; one with attention should not (Bahdanau, Cho
and Bengio 2015, figure 2).
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pipeline.arguments import Parser
from pipeline.errors import ConfigError, DataError
from pipeline.runs.run import find_run

if TYPE_CHECKING:  # torch takes seconds to import
    from pipeline.evaluation.metrics import Score

SCORES = ("BLEU", "ChrF", "Distinct", "ErrorRate", "ExactMatch")  # classes of pipeline.evaluation.text_scores


class WrittenText(TypedDict):
    """One line of written-SPLIT.jsonl, as far as it is used here."""

    row: int
    source: str
    text: str
    references: list[str]


def main(argv: list[str]) -> int:
    """Print a table.

    Raises:
        UserError: a run does not exist or has no generated texts.
    """
    parser = Parser(prog="unroll by-length", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="runs evaluated by `unroll test` on the same data")
    add("--groups", type=int, default=5, metavar="N", help="number of length groups of equal size (default: 5)")
    add("--score", choices=SCORES, default="BLEU", help="score per group (default: BLEU)")
    add("--split", default="test", help="split of the sources: test, test-NAME or validation (default: test)")
    options = parser.parse_args(argv)
    if options.groups < 1:
        raise ConfigError(f"--groups={options.groups}: expected at least 1")
    runs = {name: read_written_texts(find_run(name), options.split) for name in options.runs}
    from pipeline.evaluation import text_scores

    score: Score = getattr(text_scores, options.score)()
    print("\n".join(lengths_table(runs, options.groups, score)))
    return 0


def read_written_texts(run: Path, split: str) -> list[WrittenText]:
    """Read the texts that a run generated, by the length of the source in words, then in characters.

    Raises:
        DataError: no texts were generated, or their sources are not texts.
    """
    file = run / f"written-{split}.jsonl"
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows = sorted(rows, key=lambda row: (len(row["source"].split()), len(row["source"]), row["row"]))
    except OSError as error:
        verb = "validate" if split == "validation" else "test"
        raise DataError(f"{file} not found. Create it with `unroll {verb} {run.name}`") from error
    except (ValueError, KeyError) as error:
        raise DataError(f"{file}: expected texts with sources ({error!r})") from error
    return rows


def lengths_table(runs: dict[str, list[WrittenText]], groups: int, score: "Score") -> list[str]:
    """Return the lines of a Markdown table: a row per group of sources, a column per run.

    Raises:
        DataError: the runs have different sources.
    """
    first, *others = runs.values()
    if any([row["source"] for row in rows] != [row["source"] for row in first] for rows in others):
        raise DataError(f"{', '.join(runs)} were evaluated on different sources. Test them on one dataset")
    groups = min(groups, len(first))
    edges = [len(first) * group // groups for group in range(groups + 1)]
    lines = [f"| words per source | sources | {' | '.join(runs)} |", "|---" * (2 + len(runs)) + "|"]
    for begin, end in [*pairwise(edges), (0, len(first))]:
        lengths = [len(row["source"].split()) for row in first[begin:end]]
        span = f"{lengths[0]} to {lengths[-1]}" if (begin, end) != (0, len(first)) else "all"
        cells = [f"{first_score(rows[begin:end], score):.1f}" for rows in runs.values()]
        lines.append(f"| {span} | {end - begin} | {' | '.join(cells)} |")
    return lines


def first_score(rows: Sequence[WrittenText], score: "Score") -> float:
    """Return the first value of a score."""
    return next(iter(score([row["text"] for row in rows], [row["references"] for row in rows]).values()))
