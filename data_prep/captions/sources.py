"""Sources of images with captions: tables of captions beside a directory of images, tars, a hub data set, shapes.

Nothing of an image is read here but where it lies: the workers that scale it read it.
"""

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data_prep.sources.packed import PACKINGS, open_packed, text_lines
from data_prep.sources.shapes import drawn
from data_prep.workspace.options import builtin, is_builtin
from data_prep.workspace.report import Report
from pipeline.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class Stored(NamedTuple):
    """Bytes in a file: all, or those of a member of a tar."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: they cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    @property
    def signature(self) -> str:
        """What changes with the file."""
        status = self.path.stat()
        return f"{self.path} {self.offset} {status.st_size} {status.st_mtime_ns}"


class Captioned(NamedTuple):
    """An image with its captions, as they were written."""

    name: str
    """Of the image: what the report calls it, and what decides where it goes."""
    image: Stored | bytes
    captions: list[str]


@dataclass(frozen=True)
class Reading:
    """Where images and captions are found.

    Args:
        images: the directory that tables name images in; by default that of the table.
        image: the column or field with an image or its name.
        caption: the column or field with a caption, or a list of them.
    """

    images: Path | None = None
    image: str = "image"
    caption: str = "caption"

    def folder(self, table: Path) -> Path:
        """Where the images of a table lie."""
        return self.images or table.parent


Read = Callable[[Path, Reading, Report], Iterator[Captioned]]


def read(source: str, reading: Reading, report: Report) -> Iterator[Captioned]:
    """The images of a source, each with its captions; what is bad is counted and named.

    Raises:
        DataError: there is no such source, or of a kind that holds no captions.
    """
    if source.startswith("hub:"):
        return hub(source, reading)
    if is_builtin(source):
        return (Captioned(f"drawing {number}", *drawn(number)) for number in range(builtin(source, "drawings")))
    path = table_of(Path(source))
    return FORMATS[kind(path)](path, reading, report)


def table_of(path: Path) -> Path:
    """A file of captions, or the only one in a directory.

    Raises:
        DataError: there is none, or more than one.
    """
    if not path.exists():
        raise DataError(f"there is no source {path}; name a table of captions, .tar files, hub:NAME or builtin")
    if path.is_file():
        return path
    found = sorted(file for file in path.iterdir() if file.is_file() and kind(file, "") in FORMATS)
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise DataError(f"{path} holds {len(found)} files of captions ({names}): name the one that is meant")
    return found[0]


def kind(path: Path, otherwise: str | None = None) -> str:
    """The ending that says what a file is, without that of its packing.

    Raises:
        DataError: it is none of those that are known, and there is nothing to say otherwise.
    """
    ending = (path.with_suffix("") if path.suffix in PACKINGS else path).suffix
    if ending in FORMATS or otherwise is not None:
        return ending
    raise DataError(f"{path}: '{ending}' is no known ending; readable are {', '.join(FORMATS)} (tables also packed)")


# ---------------------------------------------------------------------- tables beside a directory of images


def table(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Rows of an image's name and a caption; several of one image make one."""

    def rows() -> Iterator[tuple[str, str, Any]]:
        with open_packed(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            found = csv.DictReader(text, delimiter="\t" if kind(path) == ".tsv" else ",")
            if not (columns := found.fieldnames):
                raise DataError(f"{path} is empty: its first line names the columns")
            if missing := {reading.image, reading.caption} - set(columns):
                raise DataError(
                    f"{path} has no column {', '.join(sorted(missing))} but {', '.join(columns)}: "
                    "choose with --image-field and --caption-field"
                )
            for row in found:
                yield f"{path}:{found.line_num}", row[reading.image], row[reading.caption]

    try:
        yield from gathered(rows(), reading.folder(path), report)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {error}") from error


def json_lines(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Lines of JSON with an image's name and a caption, or a list of them."""

    def rows() -> Iterator[tuple[str, Any, Any]]:
        for name, line in text_lines(path, report):
            if line is None:
                continue
            try:
                record = json.loads(line)
                yield name, record[reading.image], record[reading.caption]
            except ValueError:
                report.reject(name, "not JSON")
            except (KeyError, TypeError):
                report.reject(name, f"no fields {reading.image!r} and {reading.caption!r}")

    return gathered(rows(), reading.folder(path), report)


def coco(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """`images` with an `id` and a `file_name`, `annotations` with an `image_id` and a `caption` (Lin et al. 2014)."""
    try:
        with open_packed(path) as file:
            record = json.load(file)
        names = {image["id"]: image["file_name"] for image in record["images"]}
        said = [(note["image_id"], note["caption"]) for note in record["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no JSON of images and annotations as COCO has them: {error!r}") from error
    rows = ((f"{path}: annotation {at}", names.get(image), caption) for at, (image, caption) in enumerate(said))
    return gathered(rows, reading.folder(path), report)


def gathered(rows: Iterator[tuple[str, Any, Any]], folder: Path, report: Report) -> Iterator[Captioned]:
    """Images in the order in which they are first named, each with all its captions, which may be anywhere."""
    found: dict[str, list[str]] = {}
    absent: set[str] = set()
    for where, name, said in rows:
        captions = [each for each in (said if isinstance(said, list) else [said]) if isinstance(each, str)]
        if not name or not isinstance(name, str):
            report.reject(where, "caption without an image")
        elif name in absent or (name not in found and not (folder / name).is_file()):
            absent.add(name)
            report.reject(f"{where} ({name})", "caption without its image")
        else:
            found.setdefault(name, []).extend(captions)
    for name in sorted(unnamed(folder, found)):
        report.reject(name, "image without captions")
    yield from (Captioned(name, Stored(folder / name), captions) for name, captions in found.items())


def unnamed(folder: Path, named: dict[str, list[str]]) -> Iterator[str]:
    """Images in the directories of those that are named, which no caption names."""
    for below in sorted({str(PurePosixPath(name).parent) for name in named}):
        files = (str(PurePosixPath(below) / entry.name) for entry in os.scandir(folder / below))
        yield from (name for name in files if name not in named and name.lower().endswith(PICTURES))


# ---------------------------------------------------------------------- sources that hold both


def tar(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Members of one name that differ in their endings: an image, and a `.txt` or a `.json` with captions (WebDataset).

    Raises:
        DataError: the file is damaged or packed.
    """
    if path.suffix in PACKINGS:
        raise DataError(f"{path} is packed, so its images cannot be read apart: unpack it to a plain .tar")
    key, members = "", dict[str, Stored]()
    try:
        with tarfile.open(path, "r:") as file:
            for member in filter(tarfile.TarInfo.isfile, file):
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if f"{folder}/{stem}" != key:
                    yield from sample(path, key, members, reading, report)
                    key, members = f"{folder}/{stem}", {}
                members[f".{ending.lower()}"] = Stored(path, member.offset_data, member.size)
            yield from sample(path, key, members, reading, report)
    except tarfile.TarError as error:
        raise DataError(f"{path} is damaged ({error}); fetch it again") from error


def sample(path: Path, key: str, members: dict[str, Stored], reading: Reading, report: Report) -> Iterator[Captioned]:
    """The image of one key, if it is whole."""
    name = f"{path.name}:{key.lstrip('/')}"
    images = [stored for ending, stored in members.items() if ending in PICTURES]
    texts = [members[ending].read() for ending in (".txt", ".caption", ".json") if ending in members]
    if images and texts:
        try:
            said = json.loads(texts[-1])[reading.caption] if ".json" in members else texts[-1].decode()
        except (ValueError, KeyError, TypeError):
            report.reject(name, f"captions that are no UTF-8, or no JSON with a field {reading.caption!r}")
            return
        yield Captioned(name, images[0], said if isinstance(said, list) else [said])
    elif members:
        report.reject(name, "image without captions" if images else "caption without its image")


def hub(source: str, reading: Reading) -> Iterator[Captioned]:
    """Rows of a data set of the hub, or of one on disk that `datasets` knows, with an image and its captions.

    Raises:
        DataError: it cannot be loaded, or lacks a column.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    try:
        import datasets

        rows = datasets.load_dataset(name, config or None, split=split or "train")
        rows = rows.cast_column(reading.image, datasets.Image(decode=False))
        captions = rows.column_names.index(reading.caption)
    except Exception as error:  # whatever the hub, the network or the builder has to say
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}; see --image-field and --caption-field") from error
    said = rows.column_names[captions]
    for number, row in enumerate(rows):
        image = row[reading.image] or {}
        stored = image.get("bytes") or Stored(Path(image.get("path") or ""))
        yield Captioned(f"{source}:{number}", stored, row[said] if isinstance(row[said], list) else [row[said]])


FORMATS: dict[str, Read] = {
    ".csv": table, ".tsv": table, ".txt": table, ".jsonl": json_lines, ".json": coco, ".tar": tar
}  # fmt: skip
