"""Copies of sources that are not files, so that they can be read more than once and resumed."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_prep.sources.text_files import Name, find
from data_prep.workspace.report import Report
from pipeline.errors import DataError
from pipeline.files import write_durably

QUOTED = 40  # characters; a shorter passage, such as a heading, may appear in several topics


def collect(source: str, work: Path, field: str, streaming: bool, report: Report) -> list[Name]:
    """Return the files of a source; a source that is not a file is first copied to the directory `work`.

    Args:
        source: a path, `-` (standard input), `builtin`, or `hub:NAME[:CONFIG[:SPLIT]]`.
        work: directory for copies.
        field: the field of a Hub record to copy.
        streaming: read Hub data without a local cache.
        report: counts the files of a directory that are left out.

    Raises:
        DataError: the source does not exist, holds no readable file or cannot be loaded.
    """
    key = hashlib.sha256(f"{source} {field}".encode()).hexdigest()[:16]
    if source == "-":
        copy = work / f"{key}.txt"
        write_durably(copy, _standard_input)
    elif source == "builtin":
        copy = work / f"{key}.jsonl"
        write_durably(copy, lambda path: _records(path, _topics(), field))
    elif source.startswith("hub:"):
        copy = work / f"{key}.jsonl"
        if not copy.exists():  # An existing copy is complete, so a resumed preparation does not download it again.
            write_durably(copy, lambda path: _records(path, of_hub(source, streaming), field))
    else:
        return find(source, report)
    return [Name(source, copy)]


def _standard_input(path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)


def _records(path: Path, records: Iterable[str | Mapping[str, object]], field: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            kept = {field: record} if isinstance(record, str) else {k: v for k, v in record.items() if k == field}
            file.write(json.dumps(kept) + "\n")


def _topics() -> Iterator[str]:
    """Yield Python's language reference, which is part of CPython, with one document per topic.

    Topics repeat long passages of each other. Only the first copy of a passage is kept, so that a held-out topic
    does not repeat the training text.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for name in sorted(topics):
        kept = []
        for passage in topics[name].split("\n\n"):
            words = " ".join(passage.split())
            if len(words) < QUOTED or words not in seen:
                kept.append(passage)
                seen.add(words)
        yield "\n\n".join(kept)


def of_hub(source: str, streaming: bool) -> Iterator[dict[str, Any]]:
    """Yield the records of `hub:NAME[:CONFIG[:SPLIT]]`, by default of the training split.

    Raises:
        DataError: the data set cannot be loaded.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets

        yield from datasets.load_dataset(name, config or None, split=split or "train", streaming=streaming)
    except Exception as error:  # The Hub, the network and the builders raise errors of many types.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}") from error
