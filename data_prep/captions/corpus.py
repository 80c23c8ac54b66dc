"""The images of all sources of a command line, with their captions and splits."""

import argparse
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

from data_prep.captions.captioned import Captioned, Reading, Stored
from data_prep.captions.folders import Folders
from data_prep.captions.sources import files_of, read, tables_in
from data_prep.sources.walk import split_folders
from data_prep.workspace.options import is_builtin, shares, sources
from data_prep.workspace.report import Report
from data_prep.workspace.splits import dropped
from data_prep.workspace.workspace import SPLITS, ordered
from pipeline.dataset.codecs.encoding import suffix_of
from pipeline.errors import ConfigError, DataError

IMAGE_FIELDS, CAPTION_FIELDS = ("image", "file_name"), ("caption", "text")


class Corpus:
    """The images of all splits with their captions.

    Args:
        options: the command line.

    Raises:
        DataError: a directory of images does not exist.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.parts = _parts(options)
        given, self.folders = image_folders(options.images), Folders()
        image = (options.image_field,) if options.image_field else IMAGE_FIELDS
        caption = (options.caption_field,) if options.caption_field else CAPTION_FIELDS
        self.readings = {
            split: Reading(given.get(split, given.get("")), image, caption, options.plain, self.folders)
            for split in ("", *self.parts)
        }
        self._tables: dict[tuple[str, str], tuple[list[Captioned], Report]] = {}
        self.edges: list[tuple[bytes, str]] = []  # The split of an image is the first whose edge is above its hash.
        self.splits = [*self.parts]
        if "" in self.parts:
            self._set_edges(shares(options))
            self.splits = ["train", *(split for split, part in shares(options).items() if part)]

    def images(self, report: Report) -> Iterator[tuple[str, Captioned]]:
        """Yield every image with captions, and its split; invalid records are counted and named in the report."""
        homes: dict[Stored | str, str] = {}
        for given, image in self._given(report):
            split = given or self._split(image.name)
            home = homes.setdefault(image.image if isinstance(image.image, Stored) else image.name, split)
            if home != split:
                report.note(image.name, dropped(split))
                continue
            captions = list(dict.fromkeys(image.captions))
            for _ in range(len(image.captions) - len(captions)):
                report.note(image.name, "caption of the same image twice: dropped")
            yield split, image._replace(captions=captions)
        self.folders.unnamed(report)

    def fingerprint(self) -> list[str]:
        """Return strings that change when a source or an image file changes."""
        digest = blake2b(digest_size=16)
        for _, image in self._given(Report()):
            digest.update(image.image.signature.encode() if isinstance(image.image, Stored) else image.name.encode())
        return [digest.hexdigest(), *(Stored(path).signature for path in self.files())]

    def files(self) -> list[Path]:
        """Return the sources that are files."""
        named = (source for sources in self.parts.values() for source in sources)
        return [file for source in named if not _is_named(source) for file in files_of(Path(source))]

    def _given(self, report: Report) -> Iterator[tuple[str, Captioned]]:
        for split, named in self.parts.items():
            for source in named:
                yield from ((split, image) for image in self._read(split, source, report))

    def _read(self, split: str, source: str, report: Report) -> Iterable[Captioned]:
        """Return the images of a source; those of a table, which fit into memory, are read once."""
        if _is_named(source) or any(suffix_of(file) == ".tar" for file in files_of(Path(source))):
            return read(source, self.readings[split], report)
        if (split, source) not in self._tables:
            found = Report()
            self._tables[split, source] = list(read(source, self.readings[split], found)), found
        images, found = self._tables[split, source]
        report.add(found)
        return images

    def _set_edges(self, parts: dict[str, float]) -> None:
        """Hold out exactly these shares of the images, at least one, in the order of the hashes of their names."""
        hashes = sorted(_hash(image.name) for _, image in self._given(Report()))
        taken = 0
        for split, part in parts.items():
            fewest = 1 if part and len(hashes) > len(parts) else 0
            taken += max(fewest, round(part * len(hashes)))
            self.edges.append((hashes[taken] if taken < len(hashes) else b"\xff" * 9, split))

    def _split(self, name: str) -> str:
        at = _hash(name)
        return next((split for edge, split in self.edges if at < edge), "train")


def image_folders(given: list[str]) -> dict[str, Path]:
    """Return the directories of `--images [SPLIT=]DIR`, by split; that of all other splits has no name.

    Raises:
        ConfigError: a split has two directories.
        DataError: a directory does not exist.
    """
    found: dict[str, Path] = {}
    for each in given:
        split, _, path = each.partition("=")
        split, path = (split, path) if (split in SPLITS or split.startswith("test-")) and path else ("", each)
        if split in found:
            raise ConfigError(f"--images={' '.join(given)}: expected one directory per split. Omit the others")
        if not Path(path).is_dir():
            raise DataError(f"--images={path} is not a directory. Name the directory of the images")
        found[split] = Path(path)
    return found


def _parts(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the sources of each split, held-out ones first; those to be divided have no name of a split."""
    if not options.sources:
        return dict(reversed(sources(options).items()))
    folder = Path(options.sources[0])
    if len(options.sources) == 1 and folder.is_dir() and not tables_in(folder):
        found = split_folders(folder)
        return {name: [str(found[name])] for name in ordered(found)[::-1]} or {"": options.sources}
    return {"": options.sources}


def _is_named(source: str) -> bool:
    return source.startswith("hub:") or is_builtin(source)


def _hash(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()
