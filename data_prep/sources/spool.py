"""Sources that are no files are copied into one first, so that they can be read twice and resumed."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.sources.text_files import Name, find
from pipeline.errors import DataError
from pipeline.files import write_durably

QUOTED = 40  # characters; a shorter passage may stand in several topics, such as a heading


def collect(source: str, work: Path, field: str, streaming: bool) -> list[Name]:
    """The files of a source; what is no file is written below `work`.

    Args:
        source: a path, `-` (standard input), `builtin`, or `hub:NAME[:CONFIG[:SPLIT]]`.
        work: where copies go.
        field: the field of a hub record that is kept.
        streaming: read the hub without a local cache.

    Raises:
        DataError: the source is not there or gives nothing.
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
        if not copy.exists():  # complete, as it was renamed: a resumed preparation need not fetch it again
            write_durably(copy, lambda path: _records(path, of_hub(source, streaming), field))
    else:
        return find(source)
    return [Name(source, copy)]


def _standard_input(path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)


def _records(path: Path, texts: Iterator[Any], field: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in texts:
            kept = {field: record} if isinstance(record, str) else {k: v for k, v in record.items() if k == field}
            file.write(json.dumps(kept) + "\n")


def _topics() -> Iterator[str]:
    """Python's own language reference, which comes with every CPython: a topic a document.

    Topics quote each other at length. Each passage stays where it comes first, so that a held-out topic does not
    repeat the training text.
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
    """The records of `hub:NAME[:CONFIG[:SPLIT]]`; by default those of its training split.

    Raises:
        DataError: it cannot be loaded.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets

        yield from datasets.load_dataset(name, config or None, split=split or "train", streaming=streaming)
    except Exception as error:  # whatever the hub, the network or the builder has to say
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}") from error
