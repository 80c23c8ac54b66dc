"""An image with its captions, where its file is, and how both are read from the fields of a record."""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data_prep.captions.folders import Folders
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.image import Size
from pipeline.dataset.text_normalization import plain_words


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
    """An image with its captions."""

    name: str
    """Name of the image in the report; its hash selects the split."""
    image: Stored | bytes
    captions: list[str]
    stated: Size | None = None
    """Size according to the source."""


@dataclass(frozen=True)
class Reading:
    """Settings for finding images and captions.

    Args:
        images: directory of the images that a table names; by default the directory of the table.
        image: columns or fields of an image or its name; the first that a record has is read.
        caption: columns or fields of a caption or a list of captions.
        plain: convert captions to lower-case words without punctuation.
        folders: listings of the directories of images.
    """

    images: Path | None = None
    image: tuple[str, ...] = ("image",)
    caption: tuple[str, ...] = ("caption",)
    plain: bool = False
    folders: Folders = field(default_factory=Folders)

    def folder(self, table: Path) -> Path:
        """Return the directory of the images of a table."""
        return self.images or table.parent

    def captions(self, where: str, given: object, report: Report) -> Iterator[str]:
        """Yield the captions of a field in NFC with single spaces; count those that are invalid in the report."""
        for caption in (given or [""]) if isinstance(given, list) else [given]:
            if not isinstance(caption, str):
                report.reject(where, "caption that is not a text", json.dumps(caption, default=str))
                continue
            try:
                text = unicodedata.normalize("NFC", caption.encode().decode())
            except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
                report.reject(where, "not UTF-8")
                continue
            if cleaned := " ".join(plain_words(text) if self.plain else text.split()):
                yield cleaned
            else:
                report.reject(where, "empty caption")


def stated_size(record: object) -> Size | None:
    """Return the `width` and `height` of a record, if it has both."""
    if not isinstance(record, dict):
        return None
    try:
        size = Size(int(str(record["width"])), int(str(record["height"])))
    except (KeyError, ValueError):
        return None
    return size if min(size) > 0 else None
