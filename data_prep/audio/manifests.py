"""Manifests of clips: tables and JSON records as those of NeMo and Common Voice, and cuts of Lhotse."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.audio import lhotse
from data_prep.audio.clips import AUDIO_FIELDS, WHOLE, Clip, Files, Naming, Part, Record
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import open_text, readable
from pipeline.dataset.codecs.table import read_records

BEGINS, ENDS = ("start_time", "begin_time", "begin"), ("end_time", "end")  # of a clip in what it was cut from
RATES, CHANNELS = ("sampling_rate", "sample_rate"), ("num_channels", "channels")


def clips(path: Path, naming: Naming, report: Report) -> Iterator[Clip]:
    """Yield the clips that a manifest names; relative names begin in its directory, or there in `clips`."""
    files = Files(path.parent, path.parent / "clips", Path())
    for number, record in read_records(path, report.reject):
        name = f"{path}:{number}"
        if lhotse.is_cut(record):
            yield from lhotse.clips(name, record, files, naming, report)
        else:
            yield from _clip(name, record, files, naming, report)


def _clip(name: str, record: Record, files: Files, naming: Naming, report: Report) -> Iterator[Clip]:
    """Yield the clip of a record, if it is valid."""
    names = [naming.audio] if naming.audio else AUDIO_FIELDS
    audio = next((value for name in names if (value := record.get(name)) and isinstance(value, str | dict)), None)
    if audio is None:
        report.reject(name, "no file name", f"fields {', '.join(names)}")
        return
    try:
        part = _part(record)
    except ValueError as error:
        report.reject(name, "invalid offset, duration, sampling rate or number of channels", str(error))
        return
    fields = naming.fields(record)
    data, file = (audio.get("bytes"), audio.get("path")) if isinstance(audio, dict) else (None, audio)
    if isinstance(data, bytes):
        yield Clip(f"{file or name}{part.shown}", None, fields, data, part)
    elif isinstance(file, str):
        yield Clip(file + part.shown, files.find(file), fields, part=part)
    else:
        report.reject(name, "no file name", f"fields {', '.join(names)}")


def _part(record: Record) -> Part:
    """Return the part of a recording that a record names.

    A record without offset is a whole recording; it lasts as long as its duration, or the times in `BEGINS` and `ENDS`.

    Raises:
        ValueError: a value is not a number, or not a possible one.
    """
    seconds, start = _number(record, "duration"), _number(record, "offset")
    end = _number(record, "end") if "start" in record else None
    if start is None and ("end" in record or "duration" in record):
        start = _number(record, "start")
    part = WHOLE
    if start is None:
        stated = _between(record)
        part = WHOLE._replace(recording=seconds if stated is None else stated)
    else:
        part = part_between(start, end if seconds is None else start + seconds)
    if end is not None and seconds is not None and abs(end - (part.start + seconds)) > 0.01:
        raise ValueError(f"end {end:g} is not start {part.start:g} + duration {seconds:g}")
    channel = str(record.get("channel", ""))
    rate, channels = (_first_number(record, names) for names in (RATES, CHANNELS))
    return part._replace(
        channel=int(channel) if channel.isdecimal() else None,
        rate=None if rate is None else int(rate),
        channels=None if channels is None else int(channels),
    )


def _between(record: Record) -> float | None:
    """Return the seconds between the times that a record states, None if it states none in numbers."""
    try:
        begin, end = (_first_number(record, names) for names in (BEGINS, ENDS))
    except ValueError:  # times of a day
        return None
    return None if end is None else end - (begin or 0.0)


def part_between(start: float, end: float | None) -> Part:
    """Return the part of a recording from a start to an end in seconds; None is the end of the recording.

    Raises:
        ValueError: the start is negative or not before the end.
    """
    if not 0 <= start < (math.inf if end is None else end):
        raise ValueError(f"start {start:g}, end {'of the recording' if end is None else format(end, 'g')}")
    return Part(start, None if end is None else end - start)


def lines(path: Path, report: Report) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line of a file that is not empty; others than UTF-8 are rejected."""
    with open_text(path) as file, readable(path):
        for number, line in enumerate(file, 1):
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                report.reject(f"{path}:{number}", "not UTF-8")
                continue
            if text.strip():
                yield number, text


def _first_number(record: Record, names: Iterable[str]) -> float | None:
    """Return the first of several fields that a record has."""
    found = (_number(record, name) for name in names)
    return next((number for number in found if number is not None), None)


def _number(record: Record, name: str) -> float | None:
    """Return a number of a record, which may be written as text; None if it has none."""
    value = record.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name} {value}")
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} {value}")
    return number
