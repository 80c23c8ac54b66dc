"""Sources of captioned images: tables beside a directory of images, tar files, Hub data sets, generated drawings.

Only the locations of the images are collected here; the workers that scale the images read them.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from data_prep.captions.captioned import Captioned, Reading, Stored, stated_size
from data_prep.captions.tars import tar
from data_prep.sources.shapes import drawn
from data_prep.sources.walk import name_of
from data_prep.workspace.options import builtin_count, is_builtin
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.encoding import open_text, readable, suffix_of
from pipeline.dataset.codecs.image import SUFFIXES, Size
from pipeline.dataset.codecs.table import kind_of, read_records
from pipeline.errors import DataError

TABLES = (".csv", ".tsv", ".txt", ".token", ".jsonl", ".json", ".parquet")
FORMATS = (*TABLES, ".tar")
NUMBERED = re.compile(r"(.+)#\d+")  # name of an image with the number of the caption, in Flickr8k.token.txt
Row = tuple[str, object, object, Size | None]  # where it is, name of the image, captions, stated size


def read(source: str, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Yield the images of a source with their captions; invalid records are counted and named in the report.

    Raises:
        DataError: the source does not exist or has an unsupported format.
    """
    if source.startswith("hub:"):
        return hub(source, reading, report)
    if is_builtin(source):
        return (Captioned(f"drawing {number}", *drawn(number)) for number in range(builtin_count(source, "drawings")))
    return chain.from_iterable(_read_file(path, reading, report) for path in files_of(Path(source)))


def files_of(path: Path) -> list[Path]:
    """Return the file of captions itself, or the only one in a directory, or all .tar files in a directory.

    Raises:
        DataError: the source does not exist, or the directory has no file of captions or more than one.
    """
    if not path.exists():
        raise DataError(f"source {path} does not exist. Name a table of captions, .tar files, hub:NAME or builtin")
    if not path.is_dir():
        if not path.is_file():
            raise DataError(f"source {path} is not a regular file. Write it to a file first")
        if suffix_of(path) not in FORMATS:
            supported = f"{', '.join(FORMATS)} (all but .tar optionally with .gz or .xz)"
            raise DataError(f"{path}: unknown file extension '{suffix_of(path)}'. Supported are {supported}")
        return [path]
    found = tables_in(path)
    if not found:
        raise DataError(f"directory {path} has no file of captions ({', '.join(FORMATS)}). Name the file")
    if len(found) > 1 and {suffix_of(file) for file in found} != {".tar"}:
        names = ", ".join(file.name for file in found[:5])
        raise DataError(f"directory {path}: expected one file of captions, got {len(found)} ({names}). Name the file")
    return found


def tables_in(directory: Path) -> list[Path]:
    """Return the files directly in a directory that can hold captions."""
    return sorted(
        file
        for file in directory.iterdir()
        if suffix_of(file) in FORMATS and not file.name.startswith(".") and file.is_file()
    )


def _read_file(path: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    if suffix_of(path) == ".tar":
        return tar(path, reading, report)
    document = _document(path) if suffix_of(path) == ".json" else None
    rows = table(path, reading, report) if document is None else coco(path, document, report)
    return gathered(rows, reading.folder(path), reading, report)


# ---------------------------------------------------------------------- tables beside a directory of images


def table(path: Path, reading: Reading, report: Report) -> Iterator[Row]:
    """Read a table, or a file of JSON records, with an image name and a caption or a list of captions per row."""
    kind = kind_of(path)
    unnamed = _unnamed_columns(path) if kind == "delimited" else ()
    image_fields, caption_fields = ((each,) for each in unnamed) if unnamed else (reading.image, reading.caption)
    for number, record in read_records(path, report.reject, header=not unnamed):
        image = next((field for field in image_fields if field in record), None)
        caption = next((field for field in caption_fields if field in record), None)
        missing = [" or ".join(fields) for fields in (image_fields, caption_fields) if record.keys().isdisjoint(fields)]
        if image and caption:
            yield f"{path}:{number}", record[image], record[caption], stated_size(record)
        elif kind in ("delimited", "parquet"):
            raise DataError(
                f"{path} has no column {' and '.join(missing)}, only {', '.join(record)}. "
                "Set --image-field and --caption-field"
            )
        else:
            report.reject(f"{path}:{number}", f"no field {' and '.join(missing)}", f"only {', '.join(record)}")


def _unnamed_columns(path: Path) -> tuple[str, ...]:
    """Return the columns of the image and of the caption in a table of two columns whose first row names an image."""
    _, first = next(read_records(path, _ignore, header=False), (0, {}))
    images = [name for name, value in first.items() if _without_number(str(value)).lower().endswith(SUFFIXES)]
    others = [name for name in first if name not in images]
    return (*images, *others) if len(images) == len(others) == 1 else ()


def _ignore(name: str, reason: str) -> None:
    """Do not report an invalid row, because the same file is read again."""


def _without_number(name: str) -> str:
    match = NUMBERED.fullmatch(name)
    return match[1] if match and match[1].lower().endswith(SUFFIXES) else name


def _document(path: Path) -> dict[str, Any] | None:
    """Return the content of a COCO file; None for a file of other records."""
    with open_text(path) as file, readable(path):
        try:
            document = json.load(file)
        except (ValueError, RecursionError):
            return None
    return document if isinstance(document, dict) and "annotations" in document else None


def coco(path: Path, document: dict[str, Any], report: Report) -> Iterator[Row]:
    """Read a COCO file of captions (Lin et al. 2014).

    It has `images` with an `id` and a `file_name`, and `annotations` with an `image_id` and a `caption`.

    Raises:
        DataError: one of them is not a list.
    """
    if not isinstance(document.get("images"), list) or not isinstance(document["annotations"], list):
        raise DataError(f"{path} is not a COCO file of captions. It requires lists of `images` and `annotations`")
    images: dict[str, tuple[object, Size | None]] = {}
    for at, image in enumerate(document["images"]):
        if not isinstance(image, dict) or not isinstance(image.get("id"), str | int):
            report.reject(f"{path}: image {at}", "image without an id")
            continue
        named = image.get("file_name"), stated_size(image)
        if images.setdefault(str(image["id"]), named) != named:
            report.reject(f"{path}: image {at}", "id of another image", str(image["id"]))
    for at, note in enumerate(document["annotations"]):
        if isinstance(note, dict):
            name, stated = images.get(str(note.get("image_id")), (None, None))
            yield f"{path}: annotation {at}", name, note.get("caption"), stated
        else:
            report.reject(f"{path}: annotation {at}", "not a JSON object")


def gathered(rows: Iterator[Row], folder: Path, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Yield images in the order of their first row, each with the captions of all its rows."""
    found: dict[Path, Captioned] = {}
    for where, name, given, stated in rows:
        if not name or not isinstance(name, str):
            report.reject(where, "caption without an image")
            continue
        name = _without_number(name)
        if "://" in name:
            report.reject(where, "image is an address, not a file", name)
        elif (path := reading.folders.find(folder, name)) is None:
            report.reject(where, "caption without its image", name)
        else:
            if path not in found:
                inner = path.relative_to(folder) if path.is_relative_to(folder) else path
                found[path] = Captioned(name_of(inner.as_posix()), Stored(path), [], stated)
            found[path].captions.extend(reading.captions(where, given, report))
    yield from (image for image in found.values() if image.captions)


# ---------------------------------------------------------------------- Hub data sets


def hub(source: str, reading: Reading, report: Report) -> Iterator[Captioned]:
    """Read a data set of the Hub, or one on disk in a layout of the `datasets` library.

    Raises:
        DataError: the data set cannot be loaded or lacks a column.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    try:
        import datasets

        rows = datasets.load_dataset(name, config or None, split=split or "train")
        image_field, caption_field = (
            next((field for field in fields if field in rows.column_names), fields[0])
            for fields in (reading.image, reading.caption)
        )
        rows = rows.cast_column(image_field, datasets.Image(decode=False))
        rows.column_names.index(caption_field)  # raises ValueError if the column is missing
    except Exception as error:  # The Hub, the network and the builders raise errors of many types.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source} cannot be loaded: {first[0]}. Check --image-field and --caption-field") from error
    for number, row in enumerate(rows):
        where, image = f"{source}:{number}", row[image_field] or {}
        stored = image.get("bytes") or Stored(Path(image.get("path") or ""))
        captions = list(reading.captions(where, row[caption_field], report))
        if isinstance(stored, Stored) and not stored.path.is_file():
            report.reject(where, "caption without its image")
        elif captions:
            yield Captioned(where, stored, captions, stated_size(row))
