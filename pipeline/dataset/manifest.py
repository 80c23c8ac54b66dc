"""A dataset on disk: a directory of memory-mapped Arrow shards and a `dataset.json`, written once.

Shards are Arrow stream files, which `datasets.Dataset.from_file` reads. The kind of the dataset determines the rows:

tokens          a stream of text (`pipeline.dataset.tokens`)
series          time series (`pipeline.dataset.series`)
trajectories    observations, actions and rewards (`pipeline.dataset.trajectories`)
music           keys that sound in each frame of a piece (`pipeline.dataset.music`)
other kinds     sources with their targets (`pipeline.dataset.records`)
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.music import MusicSplit
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
    "music",
)  # keys that the checksum of a dataset covers
SPLITS: dict[str, Any] = {
    "tokens": TokenSplit,
    "pairs": RecordSplit,
    "captions": RecordSplit,
    "audio": RecordSplit,
    "series": SeriesSplit,
    "trajectories": TrajectorySplit,
    "pixels": RecordSplit,
    "music": MusicSplit,
}
NUMBERS = {"series", "trajectories", "music"}  # kinds without a vocabulary
PREFIX = {"target": "", "source": "source_"}  # of names, by side


class Vocabulary(NamedTuple):
    """The tokens of one side of a dataset."""

    file: Path
    """The tokenizer."""
    size: int
    eos: int
    """Id of `<eos>`, the end-of-sequence token."""


def publish(prepared: Path, target: Path, manifest: Mapping[str, Any], overwrite: bool = False) -> None:
    """Write the manifest to the prepared directory and rename it to its final path atomically.

    Args:
        prepared: directory on the file system of `target`, with the shards and the tokenizer.
        target: final path of the dataset.
        manifest: contents of `dataset.json`, without `format`.
        overwrite: replace an existing dataset.

    Raises:
        DataError: `target` exists and `overwrite` is False.
    """
    text = json.dumps({"format": FORMAT, **manifest}, indent=1) + "\n"
    write_durably(prepared / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))
    if target.exists() and not overwrite:
        raise DataError(f"{target} exists. Choose another --output, or use --overwrite.")
    replace_directory(prepared, target)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset, opened for reading by `Dataset.open`."""

    path: Path
    kind: str
    splits: dict[str, Any]
    """Splits by name, of the class in SPLITS for the kind."""
    vocabularies: dict[str, Vocabulary]
    """Vocabularies of `target`, and of `source` if it is another text; empty for numbers."""
    checksum: str
    """SHA-256 of the keys CONTENT of `dataset.json`: equal for equal data, independent of the path."""
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str], kind: str | None = None) -> "Dataset":
        """Open the dataset in the directory `path` and check the sizes of its files.

        Args:
            path: the directory.
            kind: required kind; None accepts any.

        Raises:
            DataError: the dataset is missing or of another kind or format, or a file is missing or truncated.
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
            raise DataError(f"{path / MANIFEST} has a malformed or missing entry: {error}. {PREPARE}") from error
        for file, size, _ in dataset._files():
            _check_size(path / file, size)
        return dataset

    def verify(self, splits: Collection[str] | None = None) -> None:
        """Compare the SHA-256 of every file with the recorded one.

        Args:
            splits: only those of the tokenizers and of these splits (default: all).

        Raises:
            DataError: a file differs; the message names it.
        """
        for file, _, digest in self._files(splits):
            if sha256(self.path / file) != digest:
                raise DataError(f"{self.path / file} does not match its SHA-256: it was changed. {PREPARE}")

    @property
    def stamp(self) -> str:
        """Hash of sizes and modification times of the files; while it is unchanged, `verify` can be skipped."""
        stats = [(file, (self.path / file).stat()) for file, _, _ in self._files()]
        content = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def target(self) -> Vocabulary:
        """The vocabulary of the target, which is predicted."""
        return self.vocabularies["target"]

    @property
    def source(self) -> Vocabulary | None:
        """The vocabulary of the source, if it is another text."""
        return self.vocabularies.get("source")

    @property
    def facts(self) -> DataFacts:
        """The arguments of a model derived from the dataset: vocabulary sizes."""
        sizes = {side: each.size for side, each in self.vocabularies.items()}
        return DataFacts(vocab_size=sizes.get("target"), source_vocab_size=sizes.get("source"))

    @property
    def tokenizers(self) -> dict[str, Path]:
        """The tokenizer files, by their names in a run's directory."""
        return {f"{PREFIX[side]}tokenizer.json": vocabulary.file for side, vocabulary in self.vocabularies.items()}

    def _files(self, splits: Collection[str] | None = None) -> Iterator[tuple[str, int, str]]:
        for part in _sides(self.manifest).values():
            yield part["tokenizer"]["file"], part["tokenizer"]["size"], part["tokenizer"]["sha256"]
        for split in (split for name, split in self.splits.items() if splits is None or name in splits):
            yield from ((shard.file, shard.size, shard.sha256) for shard in split.shards)


def _sides(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the manifest that describes the tokenizer of each side; empty for numbers."""
    if NUMBERS & manifest.keys():
        return {}
    return {"target": manifest} | ({"source": manifest["source"]} if "source" in manifest else {})


def _vocabulary(path: Path, entry: Mapping[str, Any]) -> Vocabulary:
    return Vocabulary(path / entry["tokenizer"]["file"], entry["vocab_size"], entry["eos"])


def _read_manifest(path: Path, kind: str | None) -> dict[str, Any]:
    if not path.is_dir():
        raise DataError(f"dataset {path} does not exist. Prepare it with `unroll prepare`.")
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} is not a dataset: {MANIFEST} not found. Prepare it with `unroll prepare`.") from error
    except OSError as error:
        raise DataError(f"{path / MANIFEST} cannot be read: {error.strerror}. Fix its permissions.") from error
    except ValueError as error:
        raise DataError(f"{path / MANIFEST} is not valid JSON ({error}). {PREPARE}") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DataError(f"{path}: expected dataset format {FORMAT}, got {version}. {PREPARE}")
    if manifest.get("kind") not in SPLITS:
        raise DataError(f"{path}: expected a kind among {', '.join(SPLITS)}, got {manifest.get('kind')!r}. {PREPARE}")
    if kind not in (None, manifest["kind"]):
        raise DataError(f"{path}: expected kind {kind!r}, got {manifest['kind']!r}. Use another dataset.")
    return dict(manifest)


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} is missing ({error.strerror}). {PREPARE}") from error
    if found != size:
        raise DataError(f"{path}: expected {size} bytes, got {found}. {PREPARE}")
