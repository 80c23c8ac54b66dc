"""WebDataset tar files: an image and the members with its captions share a name."""

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from data_prep.captions.captioned import Captioned, Reading, Stored, stated_size
from data_prep.sources.walk import HIDDEN, SPECIAL, SYSTEM, name_of
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import PACKINGS, text_start
from pipeline.dataset.codecs.image import SUFFIXES
from pipeline.errors import DataError

Member = tuple[str, Stored]


def tar(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Read a tar file: an image, and a `.json` or a `.txt` member with its captions, one per line.

    Raises:
        DataError: the file is damaged or compressed.
    """
    if path.suffix.lower() in PACKINGS:
        raise DataError(f"{path} is compressed, which does not allow reading single images. Unpack it to a plain .tar")
    try:
        for key, group in groupby(_members(path, report), lambda member: _divided(member[0])[0]):
            members = list(group)
            if any(_divided(name)[1] in SUFFIXES for name, _ in members):
                yield from _sample(path, key, {_divided(name)[1]: stored for name, stored in members}, reading, report)
                continue
            # The names of images have further dots, as in photo.v1.jpg.
            for stem, same in groupby(members, lambda member: member[0].rpartition(".")[0]):
                endings = {f".{name.rpartition('.')[2].lower()}": stored for name, stored in same}
                yield from _sample(path, stem, endings, reading, report)
    except tarfile.TarError as error:
        raise DataError(f"{path} is damaged ({error}). Download or copy it again") from error


def _members(path: Path, report: Report) -> Iterator[Member]:
    """Yield the names and places of the regular files of a tar file."""
    with tarfile.open(path, "r:") as file:
        for member in file:
            name = member.name.removeprefix("./")
            if any(part.startswith(".") or part in SYSTEM for part in name.split("/")):
                report.leave_out(f"{path.name}:{name}", HIDDEN)
            elif member.isreg():
                yield name, Stored(path, member.offset_data, member.size)
            elif not member.isdir():
                report.leave_out(f"{path.name}:{name}", SPECIAL)
        _check_end(file, path, report)


def _check_end(file: tarfile.TarFile, path: Path, report: Report) -> None:
    """Note a tar file without blocks of zeros at its end; raise DataError where another archive follows them."""
    with path.open("rb") as raw:
        raw.seek(file.offset)
        rest = raw.read(2 * tarfile.RECORDSIZE)
    if not rest:
        report.note(path.name, "no blocks of zeros at its end: the file may be truncated")
    elif rest.strip(b"\0"):
        raise DataError(f"{path}: another archive follows the end of the first one. Name each archive as a source")


def _divided(name: str) -> tuple[str, str]:
    """Return the name up to the first dot of its last part, and the ending in lower case."""
    folder, slash, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return folder + slash + stem, f"{dot}{ending.lower()}"


def _sample(path: Path, key: str, members: dict[str, Stored], reading: Reading, report: Report) -> Iterator[Captioned]:
    """Yield the image of one key if it has captions; otherwise count it in the report."""
    name = name_of(f"{path.name}:{key}")
    images = [stored for ending, stored in members.items() if ending in SUFFIXES]
    image = images[0] if images else None
    if len(images) > 1:
        report.note(name, "several images of one name: the first is read")
    texts = [members[ending] for ending in (".json", ".txt", ".caption") if ending in members]
    if image is None or not texts:
        if texts:
            report.reject(name, "caption without its image")
        elif image:
            report.note(name, "image without captions")
        return
    try:
        read = [_text(text, name) for text in texts]
        record = json.loads(read.pop(0)) if ".json" in members else {}
    except (ValueError, RecursionError, DataError):
        report.reject(name, "captions that are not UTF-8 or not JSON")
        return
    field = next((field for field in reading.caption if field in record), None) if isinstance(record, dict) else None
    if field is None and not read:
        report.reject(name, f"no field {' or '.join(reading.caption)} in its .json")
        return
    given = record[field] if field else [line for text in read for line in text.split("\n") if line.strip()]
    if captions := list(reading.captions(name, given, report)):
        yield Captioned(name, image, captions, stated_size(record))


def _text(member: Stored, name: str) -> str:
    data = member.read()
    return data[text_start(data, name) :].decode()
