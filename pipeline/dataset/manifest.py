"""A dataset on disk: a directory of memory-mapped Arrow shards and a `dataset.json`, written once.

Shards are Arrow stream files (`datasets.Dataset.from_file` reads them). What their rows hold depends on the
kind of the dataset: `tokens` is a stream of text (`pipeline.dataset.tokens`), `series` are numbers in time
(`pipeline.dataset.series`), `trajectories` what was seen, done and rewarded
(`pipeline.dataset.trajectories`); of every other kind
a row is a source with its targets (`pipeline.dataset.records`).
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.records import RecordSplit
from pipeline.dataset.series import SeriesSplit
from pipeline.dataset.shard import PREPARE
from pipeline.dataset.tokens import TokenSplit
from pipeline.dataset.trajectories import TrajectorySplit
from pipeline.errors import DataError
from pipeline.files import replace_directory, sha256, write_durably

FORMAT = 1
MANIFEST = "dataset.json"
TOKENIZER = "tokenizer.json"
CONTENT = (
    "format",
    "kind",
    "splits",
    "tokenizer",
    "vocab_size",
    "eos",
    "source",
    "audio",
    "series",
    "trajectories",
    "pixels",
)  # what the checksum of a dataset covers
SPLITS: dict[str, Any] = {
    "tokens": TokenSplit,
    "pairs": RecordSplit,
    "captions": RecordSplit,
    "audio": RecordSplit,
    "series": SeriesSplit,
    "trajectories": TrajectorySplit,
    "pixels": RecordSplit,
}
NUMBERS = {"series", "trajectories"}  # kinds without a vocabulary
PREFIX = {"target": "", "source": "source_"}  # of names of what belongs to a side


class Vocabulary(NamedTuple):
    """The tokens of one side of a dataset."""

    file: Path
    """The tokenizer."""
    size: int
    eos: int
    """The id of the end mark `<eos>`."""


def publish(prepared: Path, target: Path, manifest: Mapping[str, Any], overwrite: bool = False) -> None:
    """Complete the prepared directory with its manifest and give it its name, in one atomic step.

    Args:
        prepared: a directory on the file system of `target`, with the shards and the tokenizer in it.
        target: the name under which the dataset is to be found.
        manifest: what `dataset.json` says, without `format`.
        overwrite: replace a dataset that is already there.

    Raises:
        DataError: `target` exists and is not to be overwritten.
    """
    text = json.dumps({"format": FORMAT, **manifest}, indent=1) + "\n"
    write_durably(prepared / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists; choose another name or add --overwrite")
    replace_directory(prepared, target)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, opened for reading by `Dataset.open`."""

    path: Path
    kind: str
    splits: dict[str, Any]
    """By name, of the class that belongs to the kind."""
    vocabularies: dict[str, Vocabulary]
    """Of the `target`, which is predicted, and of the `source` where another text is read; none where numbers are."""
    checksum: str
    """SHA-256 of what `dataset.json` says of the content: equal for equal data, wherever it lies."""
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str], kind: str | None = None) -> "Dataset":
        """Open the dataset in the directory `path`, checking that its files have their recorded sizes.

        Args:
            path: the directory.
            kind: the kind that is wanted; any where it is None.

        Raises:
            DataError: there is no dataset, or of another kind or format, or files are missing or cut short.
        """
        path = Path(path)
        manifest = _read_manifest(path, kind)
        try:
            splits = {
                name: SPLITS[manifest["kind"]].of(path, name, entry) for name, entry in manifest["splits"].items()
            }
            content = json.dumps({key: manifest[key] for key in CONTENT if key in manifest}, sort_keys=True)
            vocabularies = {side: _vocabulary(path, entry) for side, entry in _sides(manifest).items()}
            checksum = hashlib.sha256(content.encode()).hexdigest()
            dataset = cls(path, manifest["kind"], splits, vocabularies, checksum, manifest)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / MANIFEST} lacks or garbles {error}; {PREPARE}") from error
        for file, size, _ in dataset._files():
            _check_size(path / file, size)
        return dataset

    def verify(self) -> None:
        """Read every shard and the tokenizer and compare their SHA-256 with the recorded one.

        Raises:
            DataError: a file differs; the message names it.
        """
        for file, _, digest in self._files():
            if sha256(self.path / file) != digest:
                raise DataError(f"{self.path / file} is not the file that was written (SHA-256 differs); {PREPARE}")

    @property
    def stamp(self) -> str:
        """Sizes and times of change of the files, in short: while it stays, they need not be read to be verified."""
        stats = [(file, (self.path / file).stat()) for file, _, _ in self._files()]
        content = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def target(self) -> Vocabulary:
        """Of what is predicted."""
        return self.vocabularies["target"]

    @property
    def source(self) -> Vocabulary | None:
        """Of what is read, where that is another text."""
        return self.vocabularies.get("source")

    @property
    def facts(self) -> DataFacts:
        """What the dataset decides about a model: sizes of vocabularies."""
        sizes: dict[str, Any] = {f"{PREFIX[side]}vocab_size": each.size for side, each in self.vocabularies.items()}
        return DataFacts(**sizes)

    @property
    def tokenizers(self) -> dict[str, Path]:
        """The tokenizer files, by the names that a run keeps them under."""
        return {f"{PREFIX[side]}tokenizer.json": vocabulary.file for side, vocabulary in self.vocabularies.items()}

    def _files(self) -> Iterator[tuple[str, int, str]]:
        for part in _sides(self.manifest).values():
            yield part["tokenizer"]["file"], part["tokenizer"]["size"], part["tokenizer"]["sha256"]
        for split in self.splits.values():
            yield from ((shard.file, shard.size, shard.sha256) for shard in split.shards)


def _sides(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Where the manifest describes the tokenizer of each side; numbers have none."""
    if NUMBERS & manifest.keys():
        return {}
    return {"target": manifest} | ({"source": manifest["source"]} if "source" in manifest else {})


def _vocabulary(path: Path, entry: Mapping[str, Any]) -> Vocabulary:
    return Vocabulary(path / entry["tokenizer"]["file"], entry["vocab_size"], entry["eos"])


def _read_manifest(path: Path, kind: str | None) -> dict[str, Any]:
    if not path.is_dir():
        raise DataError(f"there is no dataset at {path}; prepare one with `unroll prepare`")
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is no dataset (no {MANIFEST} in it); prepare one with `unroll prepare`") from error
    except OSError as error:
        raise DataError(f"{path / MANIFEST} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path / MANIFEST} is no JSON ({error}); {PREPARE}") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DataError(f"{path} has dataset format {version}, this program reads {FORMAT}; {PREPARE}")
    if manifest.get("kind") not in SPLITS:
        raise DataError(
            f"{path} is a dataset of kind {manifest.get('kind')!r}, known are {', '.join(SPLITS)}; {PREPARE}"
        )
    if kind not in (None, manifest["kind"]):
        raise DataError(f"{path} is a dataset of kind {manifest['kind']!r}, {kind!r} is wanted; name another one")
    return dict(manifest)


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} is missing ({error.strerror}); {PREPARE}") from error
    if found != size:
        raise DataError(f"{path} has {found} bytes, {size} were written; {PREPARE}")
