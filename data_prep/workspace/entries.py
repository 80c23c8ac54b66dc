"""Entries of `dataset.json` that several modalities write: the vocabulary and the origin of the data."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import sha256

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def vocabulary(file: Path, tokenizer: "Tokenizer") -> dict[str, object]:
    """Return the entry of a tokenizer and its file."""
    from data_prep.workspace.tokenizer import EOS, size

    described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
    return {"tokenizer": described, "vocab_size": size(tokenizer), "eos": tokenizer.token_to_id(EOS)}


def origin(
    program: str, argv: Sequence[str], sources: Iterable[str | Path | Mapping[str, object]], *packages: str
) -> dict[str, object]:
    """Return the entry that records the sources, the command and the versions that made a dataset.

    Args:
        program: the command without its options.
        argv: the options.
        sources: files, which are hashed here, other sources by their names, or finished entries.
        packages: packages that affect the data, besides this one.
    """
    return {
        "sources": [_entry(source) for source in sources],
        "command": [*program.split(), *argv],
        "versions": versions(*packages),
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of this package and of others."""
    return {name: version(name) for name in ("unroll", *packages)}


def _entry(source: str | Path | Mapping[str, object]) -> object:
    is_file = isinstance(source, Path) or (isinstance(source, str) and Path(source).is_file())
    return _described(Path(str(source))) if is_file else source


def _described(path: Path) -> dict[str, object]:
    return {"name": str(path), "size": path.stat().st_size, "sha256": sha256(path)}
