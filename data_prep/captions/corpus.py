"""All images that the command line names, each with its captions and its split, which is decided by image."""

import argparse
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from data_prep.captions.sources import Captioned, Reading, Stored, read, table_of
from data_prep.workspace.options import is_builtin, shares
from data_prep.workspace.report import Report
from pipeline.dataset.text_normalization import plain_words


class Corpus:
    """The images of all splits with their captions.

    Args:
        options: the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.reading = Reading(options.images, options.image_field, options.caption_field)
        self.plain = options.plain
        held_out_first = ("test", "validation", "train")
        self.parts = {name: getattr(options, name) for name in held_out_first if getattr(options, name)}
        self.edges: list[tuple[bytes, str]] = []  # an image goes to the first split whose edge is above its hash
        if options.sources:
            self.parts = {"": options.sources}
            self._cut(shares(options))

    def images(self, report: Report) -> Iterator[tuple[str, Captioned]]:
        """Every image that has captions, with its split; what is bad is counted and named."""
        held_out: set[Any] = set()
        for split, image in self._given(report):
            key = image.image if isinstance(image.image, Stored) else image.name
            if split == "train" and key in held_out:
                report.note(image.name, "in another split too: dropped from training")
                continue
            if split in ("test", "validation"):
                held_out.add(key)
            captions = [each for said in image.captions if (each := self._cleaned(said))]
            if captions:
                yield split or self._split(image.name), image._replace(captions=list(dict.fromkeys(captions)))
            else:
                report.reject(image.name, "image without captions")

    def fingerprint(self) -> list[str]:
        """What changes with the sources, and with the images that they name; by name where they are no files."""
        digest = blake2b(digest_size=16)
        for _, image in self._given(Report()):
            digest.update(image.image.signature.encode() if isinstance(image.image, Stored) else image.name.encode())
        return [digest.hexdigest(), *(Stored(path).signature for path in self.files())]

    def files(self) -> list[Path]:
        """The sources that are files."""
        named = (source for sources in self.parts.values() for source in sources)
        return [table_of(Path(source)) for source in named if not _is_named(source)]

    def _given(self, report: Report) -> Iterator[tuple[str, Captioned]]:
        for split, sources in self.parts.items():
            yield from ((split, image) for source in sources for image in read(source, self.reading, report))

    def _cut(self, parts: dict[str, float]) -> None:
        """Exactly these shares of the images, those with the lowest hashes of their names."""
        hashes = sorted(_hash(image.name) for _, image in self._given(Report()))
        taken = 0
        for split, part in parts.items():
            taken += round(part * len(hashes))
            self.edges.append((hashes[taken] if taken < len(hashes) else b"\xff" * 9, split))

    def _split(self, name: str) -> str:
        at = _hash(name)
        return next((split for edge, split in self.edges if at < edge), "train")

    def _cleaned(self, caption: str) -> str:
        return " ".join(plain_words(caption) if self.plain else caption.split())


def _is_named(source: str) -> bool:
    return source.startswith("hub:") or is_builtin(source)


def _hash(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()
