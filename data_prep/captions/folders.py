"""Image files in directories, found by names in any Unicode form, and those that no caption names."""

import os
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from data_prep.sources.walk import HIDDEN, SPECIAL
from data_prep.workspace.report import Report
from pipeline.dataset.codecs.image import SUFFIXES
from pipeline.errors import DataError


class Folders:
    """Listings of directories of images, each read once; names of files are compared in NFC."""

    def __init__(self) -> None:
        self._listings: dict[str, dict[str, os.DirEntry[str]]] = {}
        self._found: set[str] = set()

    def find(self, folder: Path, name: str) -> Path | None:
        """Return the regular file of this name, relative to a folder; None if there is none."""
        found = self._find(folder, name) or ("\\" in name and self._find(folder, name.replace("\\", "/"))) or None
        if found:
            self._found.add(found)
        return Path(found) if found else None

    def _find(self, folder: Path, name: str) -> str | None:
        path, entry = str(folder), None
        for part in PurePosixPath(name).parts:
            if part in ("/", ".."):
                path, entry = os.path.normpath(os.path.join(path, part)), None
                continue
            entry = self._listing(path).get(normalize("NFC", part))
            if entry is None:
                return None
            path = os.path.join(path, entry.name)
        return path if entry and os.path.isfile(path) else None

    def unnamed(self, report: Report) -> None:
        """Note the images beside the found ones that were never found; count hidden and special files."""
        for folder in sorted({os.path.dirname(path) for path in self._found}):
            for entry in self._listing(folder).values():
                path = os.path.join(folder, entry.name)
                if not entry.name.lower().endswith(SUFFIXES) or path in self._found:
                    continue
                if entry.name.startswith("."):
                    report.leave_out(path, HIDDEN)
                elif os.path.isfile(path):
                    report.note(path, "image without captions")
                else:
                    report.leave_out(path, SPECIAL)

    def _listing(self, folder: str) -> dict[str, os.DirEntry[str]]:
        if folder not in self._listings:
            try:
                with os.scandir(folder) as entries:
                    listing = {normalize("NFC", entry.name): entry for entry in entries}
            except (FileNotFoundError, NotADirectoryError, ValueError):
                listing = {}
            except OSError as error:
                raise DataError(f"{folder} cannot be read: {error.strerror}") from error
            self._listings[folder] = dict(sorted(listing.items()))
        return self._listings[folder]
