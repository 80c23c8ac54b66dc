"""Sources of captioned images: tables beside a directory of images, tar files, Hub data sets, generated drawings.

Only the locations of the images are collected here; the workers that scale the images read them.
"""

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from data_prep.sources.packed import PACKINGS, open_packed, text_lines
from data_prep.sources.shapes import drawn
from data_prep.workspace.options import builtin_count, is_builtin
from data_prep.workspace.report import Report
from pipeline.errors import DataError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


class Stored(NamedTuple):
    """A file, or the bytes of a member of a tar file."""

    path: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            OSError: the file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    @property
    def signature(self) -> str:
        """String that changes when the file changes."""
        status = self.path.stat()
        return f"{self.path} {self.offset} {status.st_size} {status.st_mtime_ns}"


class Captioned(NamedTuple):
    """An image with its captions, before cleaning."""

    name: str
    """Name of the image in the report; its hash selects the split."""
    image: Stored | bytes
    captions: list[str]


@dataclass(frozen=True)
class Reading:
    """Settings for finding images and captions.

    Args:
        images: directory of the images that a table names; by default the directory of the table.
        image: the column or field of an image or its name.
        caption: the column or field of a caption or a list of captions.
    """

    images: Path | None = None
    image: str = "image"
    caption: str = "caption"

    def folder(self, table: Path) -> Path:
        """Return the directory of the images of a table."""
        return self.images or table.parent


Read = Callable[[Path, Reading, Report], Iterator[Captioned]]


def read(source: str, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Yield the images of a source with their captions; invalid records are counted and named in the report.

    Raises:
        DataError: the source does not exist or has an unsupported format.
    """
    if source.startswith("hub:"):
        return hub(source, reading)
    if is_builtin(source):
        return (Captioned(f"drawing {number}", *drawn(number)) for number in range(builtin_count(source, "drawings")))
    path = table_of(Path(source))
    return FORMATS[kind(path)](path, reading, report)


def table_of(path: Path) -> Path:
    """Return the file of captions itself, or the only one in a directory.

    Raises:
        DataError: the source does not exist, or the directory does not have exactly one file of captions.
    """
    if not path.exists():
        raise DataError(f"source {path} does not exist. Name a table of captions, .tar files, hub:NAME or builtin")
    if path.is_file():
        return path
    found = sorted(file for file in path.iterdir() if file.is_file() and kind(file, must_be_known=False) in FORMATS)
    if not found:
        raise DataError(f"directory {path} has no file of captions ({', '.join(FORMATS)}). Name the file")
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5])
        raise DataError(f"directory {path}: expected one file of captions, got {len(found)} ({names}). Name the file")
    return found[0]


def kind(path: Path, must_be_known: bool = True) -> str:
    """Return the file extension without that of the compression.

    Args:
        path: the file.
        must_be_known: raise an error for an unknown extension.

    Raises:
        DataError: the extension is unknown.
    """
    ending = (path.with_suffix("") if path.suffix in PACKINGS else path).suffix
    if ending in FORMATS or not must_be_known:
        return ending
    supported = f"{', '.join(FORMATS)} (all but .tar optionally with .gz or .xz)"
    raise DataError(f"{path}: unknown file extension '{ending}'. Supported are {supported}")


# ---------------------------------------------------------------------- tables beside a directory of images


def table(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Read a CSV or TSV table with an image name and a caption per row; an image may have several rows."""

    def rows() -> Iterator[tuple[str, str, str]]:
        with open_packed(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            found = csv.DictReader(text, delimiter="\t" if kind(path) == ".tsv" else ",")
            if not (columns := found.fieldnames):
                raise DataError(f"{path} is empty. The first line must name the columns")
            if missing := {reading.image, reading.caption} - set(columns):
                raise DataError(
                    f"{path} has no column {' and '.join(sorted(missing))}, only {', '.join(columns)}. "
                    "Set --image-field and --caption-field"
                )
            for row in found:
                yield f"{path}:{found.line_num}", row[reading.image], row[reading.caption]

    try:
        yield from gathered(rows(), reading.folder(path), report)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table in UTF-8 ({error}). Check its format and encoding") from error


def json_lines(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Read JSON Lines with an image name and a caption, or a list of captions, per line."""

    def rows() -> Iterator[tuple[str, object, object]]:
        for name, line in text_lines(path, report):
            if line is None:
                continue
            try:
                record = json.loads(line)
                yield name, record[reading.image], record[reading.caption]
            except ValueError:
                report.reject(name, "invalid JSON")
            except (KeyError, TypeError):
                report.reject(name, f"no fields {reading.image!r} and {reading.caption!r}")

    return gathered(rows(), reading.folder(path), report)


def coco(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Read a COCO JSON file of captions (Lin et al. 2014).

    It has `images` with an `id` and a `file_name`, and `annotations` with an `image_id` and a `caption`.
    """
    try:
        with open_packed(path) as file:
            record = json.load(file)
        names = {image["id"]: image["file_name"] for image in record["images"]}
        captions = [(note["image_id"], note["caption"]) for note in record["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a COCO file of captions ({error!r}). It requires `images` and `annotations`"
        ) from error
    rows = ((f"{path}: annotation {at}", names.get(image), caption) for at, (image, caption) in enumerate(captions))
    return gathered(rows, reading.folder(path), report)


def gathered(rows: Iterator[tuple[str, object, object]], folder: Path, report: Report) -> Iterator[Captioned]:
    """Yield images in the order of their first row, each with the captions of all its rows."""
    found: dict[str, list[str]] = {}
    absent: set[str] = set()
    for where, name, given in rows:
        captions = [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)]
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
    """Yield the images without captions in the directories of the named images."""
    for below in sorted({str(PurePosixPath(name).parent) for name in named}):
        files = (str(PurePosixPath(below) / entry.name) for entry in os.scandir(folder / below))
        yield from (name for name in files if name not in named and name.lower().endswith(PICTURES))


# ---------------------------------------------------------------------- sources that hold both


def tar(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Read a WebDataset tar file: an image and a `.txt` or `.json` member with its captions share a name.

    Raises:
        DataError: the file is damaged or compressed.
    """
    if path.suffix in PACKINGS:
        raise DataError(f"{path} is compressed, which does not allow reading single images. Unpack it to a plain .tar")
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
        raise DataError(f"{path} is damaged ({error}). Download or copy it again") from error


def sample(path: Path, key: str, members: dict[str, Stored], reading: Reading, report: Report) -> Iterator[Captioned]:
    """Yield the image of one key if it has captions; otherwise count it in the report."""
    name = f"{path.name}:{key.lstrip('/')}"
    images = [stored for ending, stored in members.items() if ending in PICTURES]
    texts = [members[ending].read() for ending in (".txt", ".caption", ".json") if ending in members]
    if images and texts:
        try:
            captions = json.loads(texts[-1])[reading.caption] if ".json" in members else texts[-1].decode()
        except (ValueError, KeyError, TypeError):
            report.reject(name, f"captions not in UTF-8, or not in a JSON field {reading.caption!r}")
            return
        yield Captioned(name, images[0], captions if isinstance(captions, list) else [captions])
    elif members:
        report.reject(name, "image without captions" if images else "caption without its image")


def hub(source: str, reading: Reading) -> Iterator[Captioned]:
    """Read a data set of the Hub, or one on disk in a layout of the `datasets` library.

    Raises:
        DataError: the data set cannot be loaded or lacks a column.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    try:
        import datasets

        rows = datasets.load_dataset(name, config or None, split=split or "train")
        rows = rows.cast_column(reading.image, datasets.Image(decode=False))
        rows.column_names.index(reading.caption)  # raises ValueError if the column is missing
    except Exception as error:  # The Hub, the network and the builders raise errors of many types.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}. Check --image-field and --caption-field") from error
    for number, row in enumerate(rows):
        image = row[reading.image] or {}
        stored = image.get("bytes") or Stored(Path(image.get("path") or ""))
        captions = row[reading.caption]
        yield Captioned(f"{source}:{number}", stored, captions if isinstance(captions, list) else [captions])


FORMATS: dict[str, Read] = {
    ".csv": table, ".tsv": table, ".txt": table, ".jsonl": json_lines, ".json": coco, ".tar": tar
}  # fmt: skip
