"""The images of all sources of a command line, with their captions and splits."""

import argparse
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

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
        self.edges: list[tuple[bytes, str]] = []  # The split of an image is the first whose edge is above its hash.
        if options.sources:
            self.parts = {"": options.sources}
            self._set_edges(shares(options))

    def images(self, report: Report) -> Iterator[tuple[str, Captioned]]:
        """Yield every image with captions, and its split; invalid records are counted and named in the report."""
        held_out: set[Stored | str] = set()
        for split, image in self._given(report):
            key = image.image if isinstance(image.image, Stored) else image.name
            if split == "train" and key in held_out:
                report.note(image.name, "in another split too: dropped from training")
                continue
            if split in ("test", "validation"):
                held_out.add(key)
            captions = [cleaned for caption in image.captions if (cleaned := self._cleaned(caption))]
            if captions:
                yield split or self._split(image.name), image._replace(captions=list(dict.fromkeys(captions)))
            else:
                report.reject(image.name, "image without captions")

    def fingerprint(self) -> list[str]:
        """Return strings that change when a source or an image file changes."""
        digest = blake2b(digest_size=16)
        for _, image in self._given(Report()):
            digest.update(image.image.signature.encode() if isinstance(image.image, Stored) else image.name.encode())
        return [digest.hexdigest(), *(Stored(path).signature for path in self.files())]

    def files(self) -> list[Path]:
        """Return the sources that are files."""
        named = (source for sources in self.parts.values() for source in sources)
        return [table_of(Path(source)) for source in named if not _is_named(source)]

    def _given(self, report: Report) -> Iterator[tuple[str, Captioned]]:
        for split, sources in self.parts.items():
            yield from ((split, image) for source in sources for image in read(source, self.reading, report))

    def _set_edges(self, parts: dict[str, float]) -> None:
        """Hold out exactly these shares of the images, in the order of the hashes of their names."""
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
