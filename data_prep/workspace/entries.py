"""Entries of `dataset.json` that several modalities write: the vocabulary, and where the data come from."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.files import sha256


def vocabulary(file: Path, tokenizer: Any) -> dict[str, Any]:
    """Describe a tokenizer and its file."""
    from data_prep.workspace.tokenizer import EOS, size

    described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
    return {"tokenizer": described, "vocab_size": size(tokenizer), "eos": tokenizer.token_to_id(EOS)}


def origin(program: str, argv: Sequence[str], sources: Iterable[Any], *packages: str) -> dict[str, Any]:
    """Describe what a dataset was made from and how.

    Args:
        program: the command without its options.
        argv: the options.
        sources: each a file, which is hashed, or what the manifest holds of it.
        packages: those that shaped the data, beside this one.
    """
    return {
        "sources": [_described(source) if isinstance(source, Path) else source for source in sources],
        "command": [*program.split(), *argv],
        "versions": versions(*packages),
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of this package and of others."""
    return {name: version(name) for name in ("unroll", *packages)}


def _described(path: Path) -> dict[str, Any]:
    return {"name": str(path), "size": path.stat().st_size, "sha256": sha256(path)}
