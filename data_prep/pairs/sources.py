"""Sources of pairs: two parallel files, one file with both sides, a Hub data set, or conversations.

Legend: a unit is kept or dropped as a whole; it is a pair, or a conversation with all its pairs.
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
    """A source text and its target text."""

    source: str
    target: str


class Unit(NamedTuple):
    """Pairs that are kept or dropped together, and the text they come from."""

    text: str
    pairs: tuple[Pair, ...]


Read = Callable[[list[Path], Report], Iterator[Unit]]


def pair(name: str, source: str, target: str, report: Report) -> Iterator[Unit]:
    """Yield the pair as a unit, or count it in the report if a side is empty."""
    source, target = source.strip(), target.strip()
    if not source or not target:
        report.reject(name, "empty source" if target else "empty target" if source else "both sides empty")
        return
    report.documents += 1
    yield Unit(f"{source}\t{target}", (Pair(source, target),))


def parallel(paths: list[Path], report: Report) -> Iterator[Unit]:
    """Read pairs of line k of one file and line k of the other.

    Raises:
        DataError: the files have different numbers of lines.
    """
    one, other = paths
    both = zip_longest(text_lines(one, report), text_lines(other, report))
    for number, (left, right) in enumerate(both):
        if left is None or right is None:
            longer = number + 1 + sum(1 for _ in both)
            counts = (number, longer) if left is None else (longer, number)
            raise DataError(
                f"{one} has {counts[0]} lines, but {other} has {counts[1]}. Line k of both files must be a pair"
            )
        if left[1] is not None and right[1] is not None:
            yield from pair(left[0], left[1], right[1], report)


def delimited(delimiter: str) -> Read:
    """Return a reader of lines with a source, the delimiter and a target."""

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
    """Return a reader of JSON Lines with both texts in fields; a list of targets makes several pairs."""

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for name, line in text_lines(paths[0], report):
            if line is None:
                continue
            try:
                record = json.loads(line)
            except ValueError:
                report.reject(name, "invalid JSON")
            else:
                yield from of_record(name, record, source_field, target_field, report)

    return read


def hub(source_field: str, target_field: str) -> Read:
    """Return a reader of Hub data sets, or of directories in their layout: `hub:NAME[:CONFIG[:SPLIT]]`."""

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for number, record in enumerate(of_hub(str(paths[0]), streaming=False)):
            yield from of_record(f"{paths[0]}:{number}", record, source_field, target_field, report)

    return read


def of_record(name: str, record: object, source_field: str, target_field: str, report: Report) -> Iterator[Unit]:
    """Yield the pairs of a record; a dot in the name of a field selects a nested field, as in `translation.de`."""
    try:
        source, targets = (_nested(record, field) for field in (source_field, target_field))
        targets = [targets] if isinstance(targets, str) else list(targets)
        if not isinstance(source, str) or not all(isinstance(each, str) for each in targets):
            raise TypeError
    except (LookupError, TypeError):
        report.reject(name, f"no texts in fields {source_field!r} and {target_field!r}")
    else:
        for target in targets:
            yield from pair(name, source, target, report)


def _nested(record: Any, field: str) -> Any:
    return reduce(getitem, field.split("."), record)


def conversations(mark: str, history: int) -> Read:
    """Return a reader of conversations, one per line; each turn but the first is the reply to those before it.

    Args:
        mark: text at the end of each turn; it also separates the turns of a source.
        history: maximum number of turns of a source.
    """

    def read(paths: list[Path], report: Report) -> Iterator[Unit]:
        for name, line in text_lines(paths[0], report):
            if line is None:
                continue
            turns = [turn.strip() for turn in line.split(mark)]
            turns = [turn for turn in turns if turn]
            if len(turns) < 2:
                report.reject(name, f"fewer than two turns separated by {mark!r}")
                continue
            report.documents += 1
            yield Unit(line.strip(), tuple(
                Pair(f" {mark} ".join(turns[max(0, at - history) : at]), turns[at]) for at in range(1, len(turns))
            ))  # fmt: skip

    return read


def is_hub(path: Path) -> bool:
    """Return whether a source is a Hub data set and not a file."""
    return str(path).startswith("hub:")


def reader(paths: Sequence[Path], delimiter: str, fields: tuple[str, str], dialogue: tuple[str, int] | None) -> Read:
    """Return the reader for the files of a split.

    Args:
        paths: one or two files, or one Hub data set.
        delimiter: text between source and target of a line.
        fields: fields of source and target in a record.
        dialogue: mark and history of conversations, if the files hold them.

    Raises:
        ConfigError: the number or kind of the files is not supported.
        DataError: a file does not exist.
    """
    if len(paths) == 1 and is_hub(paths[0]) and not dialogue:
        return hub(*fields)
    for path in paths:
        if is_hub(path):
            raise ConfigError(f"{path}: a Hub data set must be the only source of its split, without --dialogue")
        if not path.is_file():
            raise DataError(f"file {path} does not exist. Check the path, or name a data set as hub:NAME")
    if dialogue and len(paths) == 1:
        return conversations(*dialogue)
    if dialogue or len(paths) > 2:
        expected = "one file for --dialogue" if dialogue else "one file or two parallel files"
        raise ConfigError(f"expected {expected} per split, got {len(paths)}: {', '.join(map(str, paths))}")
    if len(paths) == 2:
        return parallel
    inner = paths[0].with_suffix("") if paths[0].suffix in PACKINGS else paths[0]
    return records(*fields) if inner.suffix == ".jsonl" else delimited(delimiter)
