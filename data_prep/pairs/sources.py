"""Sources of pairs: two parallel files, one with both sides on a line or in a record, a hub data set, or conversations.

Legend: a unit is what is kept or dropped as a whole: a pair, or a conversation with all its pairs.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import zip_longest
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.sources.packed import PACKINGS, text_lines
from data_prep.sources.spool import of_hub
from data_prep.workspace.report import Report
from pipeline.errors import ConfigError, DataError


class Pair(NamedTuple):
    """A text and what is to be written from it."""

    source: str
    target: str


class Unit(NamedTuple):
    """Pairs that are kept or dropped together, and the text they come from."""

    text: str
    pairs: tuple[Pair, ...]


Read = Callable[[list[Path], Report], Iterator[Unit]]


def pair(name: str, source: str, target: str, report: Report) -> Iterator[Unit]:
    """The pair as a unit; nothing, but counted, where a side is empty."""
    source, target = source.strip(), target.strip()
    if not source or not target:
        report.reject(name, "empty source" if target else "empty target" if source else "both sides empty")
        return
    report.documents += 1
    yield Unit(f"{source}\t{target}", (Pair(source, target),))


def parallel(paths: list[Path], report: Report) -> Iterator[Unit]:
    """Line k of the one file with line k of the other.

    Raises:
        DataError: the files have unequal numbers of lines.
    """
    one, other = paths
    both = zip_longest(text_lines(one, report), text_lines(other, report))
    for number, (left, right) in enumerate(both):
        if left is None or right is None:
            longer = number + 1 + sum(1 for _ in both)
            counts = (number, longer) if left is None else (longer, number)
            raise DataError(f"{one} has {counts[0]} lines and {other} {counts[1]}: line k of both must be a pair")
        if left[1] is not None and right[1] is not None:
            yield from pair(left[0], left[1], right[1], report)


def delimited(delimiter: str) -> Read:
    """Lines with a source, the delimiter and a target."""

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for name, line in text_lines(paths[0], report):
            if line is None:
                continue
            source, found, target = line.partition(delimiter)
            if found:
                yield from pair(name, source, target, report)
            else:
                report.reject(name, f"no delimiter {delimiter!r}")

    return read


def records(source_field: str, target_field: str) -> Read:
    """Lines of JSON with both texts in fields; a list of targets makes a pair of each."""

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for name, line in text_lines(paths[0], report):
            if line is None:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                report.reject(name, "not JSON")
            else:
                yield from of_record(name, record, source_field, target_field, report)

    return read


def hub(source_field: str, target_field: str) -> Read:
    """Rows of a data set of the hub, or of a directory in its layout: `hub:NAME[:CONFIG[:SPLIT]]`."""

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for number, record in enumerate(of_hub(str(paths[0]), streaming=False)):
            yield from of_record(f"{paths[0]}:{number}", record, source_field, target_field, report)

    return read


def of_record(name: str, record: Any, source_field: str, target_field: str, report: Report) -> Iterator[Unit]:
    """The pairs of a record; a dot in a field's name leads into a field of fields, as in `translation.de`."""
    try:
        source, targets = (reduce(getitem, field.split("."), record) for field in (source_field, target_field))
        targets = [targets] if isinstance(targets, str) else list(targets)
        if not isinstance(source, str) or not all(isinstance(each, str) for each in targets):
            raise TypeError
    except (LookupError, TypeError):
        report.reject(name, f"no texts in fields {source_field!r} and {target_field!r}")
    else:
        for target in targets:
            yield from pair(name, source, target, report)


def conversations(mark: str, history: int) -> Read:
    """Lines of turns that end in a mark; each turn but the first is the answer to those before it.

    Args:
        mark: what ends a turn; it stands between the turns of a source too.
        history: most turns of a source.
    """

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for name, line in text_lines(paths[0], report):
            if line is None:
                continue
            turns = [turn.strip() for turn in line.split(mark)]
            turns = [turn for turn in turns if turn]
            if len(turns) < 2:
                report.reject(name, f"fewer than two turns that end in {mark!r}")
                continue
            report.documents += 1
            yield Unit(line.strip(), tuple(
                Pair(f" {mark} ".join(turns[max(0, at - history) : at]), turns[at]) for at in range(1, len(turns))
            ))  # fmt: skip

    return read


def is_hub(path: Path) -> bool:
    """Whether a source is the name of a data set, not a file."""
    return str(path).startswith("hub:")


def reader(paths: Sequence[Path], delimiter: str, fields: tuple[str, str], dialogue: tuple[str, int] | None) -> Read:
    """How these files are read.

    Raises:
        ConfigError: more than two files, or a kind of file that holds no pairs.
        DataError: a file is not there.
    """
    if len(paths) == 1 and is_hub(paths[0]) and not dialogue:
        return hub(*fields)
    for path in paths:
        if is_hub(path):
            raise ConfigError(f"{path} stands alone, for both sides, and holds no --dialogue")
        if not path.is_file():
            raise DataError(f"there is no file {path}")
    if dialogue and len(paths) == 1:
        return conversations(*dialogue)
    if dialogue or len(paths) > 2:
        raise ConfigError(f"{', '.join(map(str, paths))}: give one file, or two parallel ones (for --dialogue one)")
    if len(paths) == 2:
        return parallel
    inner = paths[0].with_suffix("") if paths[0].suffix in PACKINGS else paths[0]
    return records(*fields) if inner.suffix == ".jsonl" else delimited(delimiter)
