"""Sources of pairs: two parallel files, one file with both sides, a Hub data set, or conversations."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from itertools import zip_longest
from operator import getitem
from pathlib import Path
from typing import Any

from data_prep.pairs.layout import Layout, Unit
from data_prep.sources.packed import text_lines
from data_prep.sources.spool import of_hub
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import suffix_of
from pipeline.dataset.codecs.table import read_records
from pipeline.errors import ConfigError, DataError

RECORDS = (".jsonl", ".json", ".csv", ".parquet")
TABLES = (*RECORDS, ".tsv")  # files with both sides
FOREIGN = {
    ".tmx": "a translation memory. Convert it to two parallel files, or download the corpus in Moses format",
    ".zip": "an archive. Unpack it and name its files",
}
TURN = ("content", "value", "text")  # fields that hold the text of a turn in files of chats
TAB = "\t"
VARIANT = re.compile(r"\(\d+\)$")
MORE = "more than two columns: choose two, such as --source-field 1 --target-field 2"
BOTH = "tab in both lines: the two files are parallel only if each has one side"
CODES = "ar bg ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv nl no pl pt ro ru sk sl sr sv tr uk vi zh"
LANGUAGES = frozenset(CODES.split())
HEADER = "two language codes: for a header add --source-field and --target-field"
NUMBERED = "source ends in a number in parentheses: for a pronouncing dictionary add --pronunciations"
Read = Callable[[Sequence[Path], Layout, Report], Iterator[Unit]]


def parallel(paths: Sequence[Path], layout: Layout, report: Report) -> Iterator[Unit]:
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
            if TAB in left[1] and TAB in right[1]:
                report.note(left[0], BOTH)
            yield from layout.pair(left[0], left[1], right[1], report)


def delimited(paths: Sequence[Path], layout: Layout, report: Report) -> Iterator[Unit]:
    """Read lines of columns without quotation marks, two of which are the source and the target.

    The first line is a header if it has the names of both columns.

    Raises:
        DataError: a column does not exist.
    """
    width, places = 2, (0, 1)
    for number, (name, line) in enumerate(_lines(paths, report)):
        columns = line.split(layout.delimiter or TAB)
        if number == 0:
            header = layout.columns(paths[0], columns)
            if header or layout.numbered:
                width, places = len(columns), header or (int(layout.fields[0]) - 1, int(layout.fields[1]) - 1)
            if max(places) >= width:
                raise DataError(f"{name}: expected at least {max(places) + 1} columns, got {width}. Check --delimiter")
            if header:
                continue
            if len(set(columns)) == 2 and set(columns) <= LANGUAGES:
                report.note(name, HEADER)
        if len(columns) == width:
            source, target = columns[places[0]], columns[places[1]]
            if VARIANT.search(source):
                report.note(name, NUMBERED)
            yield from layout.pair(name, source, target, report)
        elif len(columns) == 1:
            report.reject(name, f"no delimiter {layout.delimiter or TAB!r}")
        else:
            report.reject(name, MORE if width == 2 and not layout.numbered else "another number of columns than line 1")


def pronunciations(paths: Sequence[Path], layout: Layout, report: Report) -> Iterator[Unit]:
    """Read a pronouncing dictionary: WORD SOUND SOUND, variants as WORD(2), comments after `;;;` and ` #`."""
    for name, line in _lines(paths, report):
        if line.startswith((";;;", "# ")):
            report.leave_out(name, "comment")
            continue
        word, sounds = [*line.partition(" #")[0].split(maxsplit=1), "", ""][:2]
        yield from layout.pair(name, VARIANT.sub("", word), sounds, report)


def conversations(paths: Sequence[Path], layout: Layout, report: Report) -> Iterator[Unit]:
    """Read conversations, one per line; each turn ends with the mark."""
    for name, line in _lines(paths, report):
        yield from layout.conversation(name, line.split(layout.mark or ""), report)


def _lines(paths: Sequence[Path], report: Report) -> Iterator[tuple[str, str]]:
    """Yield the names and the texts of the lines that are valid and not empty."""
    for name, line in text_lines(paths[0], report):
        if line:
            yield name, line
        elif line is not None:
            report.empty += 1


def records(paths: Sequence[Path], layout: Layout, report: Report) -> Iterator[Unit]:
    """Read records with both texts in fields, or with a conversation in the field of the source.

    Raises:
        DataError: a column of a table does not exist.
    """
    nested = layout.mark or "." in "".join(layout.fields)
    columns = suffix_of(paths[0]) in (".csv", ".parquet") and not layout.numbered and not nested
    for number, record in read_records(paths[0], report.reject, header=not layout.numbered):
        if columns and layout.columns(paths[0], list(record)) is None:
            named = f"{paths[0]} has the columns {', '.join(record)}"
            raise DataError(f"{named}. Choose two by name or number with --source-field and --target-field")
        columns = False
        yield from _of_record(f"{paths[0]}:{number}", record, layout, report)


def hub(paths: Sequence[Path], layout: Layout, report: Report) -> Iterator[Unit]:
    """Read a Hub data set, or a directory in its layout: `hub:NAME[:CONFIG[:SPLIT]]`."""
    for number, record in enumerate(of_hub(str(paths[0]), streaming=False)):
        yield from _of_record(f"{paths[0]}:{number}", record, layout, report)


def _of_record(name: str, record: object, layout: Layout, report: Report) -> Iterator[Unit]:
    """Yield the pairs of a record; a dot in the name of a field selects a nested field, as in `translation.de`."""
    source_field, target_field = layout.fields
    try:
        source = _nested(record, source_field)
        if layout.mark:
            yield from layout.conversation(name, _turns(source, layout.mark), report)
            return
        targets = _nested(record, target_field)
        targets = [targets] if isinstance(targets, str) else targets
        if not all(isinstance(each, str) for each in (source, *targets)) or isinstance(targets, dict):
            raise TypeError
    except (LookupError, TypeError, AttributeError, StopIteration):
        fields = f"field {source_field!r}" if layout.mark else f"fields {source_field!r} and {target_field!r}"
        report.reject(name, f"no texts in {fields}")
        return
    if not targets:
        report.reject(name, "no target in the list of targets")
    for target in targets:
        yield from layout.pair(name, source, target, report)


def _nested(record: Any, field: str) -> Any:
    return record[field] if isinstance(record, dict) and field in record else reduce(getitem, field.split("."), record)


def _turns(conversation: object, mark: str) -> list[str]:
    """Return the turns of a text with marks, or of a list of texts or of objects such as `{"role": "user", ...}`."""
    if isinstance(conversation, str):
        return conversation.split(mark)
    if not isinstance(conversation, list):
        raise TypeError
    return [
        turn if isinstance(turn, str) else next(turn[field] for field in TURN if isinstance(turn.get(field), str))
        for turn in conversation
    ]


def is_hub(path: Path) -> bool:
    """Return whether a source is a Hub data set and not a file."""
    return str(path).startswith("hub:")


def reader(paths: Sequence[Path], layout: Layout) -> Callable[[Report], Iterator[Unit]]:
    """Return the reader of the files of a split.

    Args:
        paths: one or two files, or one Hub data set.
        layout: form of the pairs.

    Raises:
        ConfigError: the number or kind of the files is not supported.
        DataError: a file does not exist, or its kind is not supported.
    """
    return partial(_reader(paths, layout), paths, layout)


def _reader(paths: Sequence[Path], layout: Layout) -> Read:
    for path in paths:
        if is_hub(path):
            if len(paths) > 1 or layout.mark:
                raise ConfigError(f"{path}: a Hub data set must be the only source of its split, without --dialogue")
            return hub
        if not path.is_file():
            problem = "is not a regular file. Name a file" if path.exists() else "does not exist. Check the path"
            raise DataError(f"file {path} {problem}, or name a data set as hub:NAME")
        if suffix_of(path) in FOREIGN:
            raise DataError(f"{path}: expected a file of text, got {FOREIGN[suffix_of(path)]}")
    alone = "--dialogue" if layout.mark else "--pronunciations" if layout.pronunciations else ""
    if len(paths) > (1 if alone else 2):
        expected = f"one file for {alone}" if alone else "one file or two parallel files"
        raise ConfigError(f"expected {expected} per split, got {len(paths)}: {', '.join(map(str, paths))}")
    if len(paths) == 2:
        if any(suffix_of(path) in TABLES for path in paths):
            given = " ".join(map(str, paths))
            raise ConfigError(f"{given}: expected two parallel text files, got files with both sides. Join them")
        return parallel
    if suffix_of(paths[0]) in RECORDS and layout.delimiter is None:
        return records
    return conversations if layout.mark else pronunciations if layout.pronunciations else delimited
