"""The files of a recipe: found, verified by their SHA-256, and prepared unless the dataset exists."""

import gzip
import hashlib
import json
import lzma
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.commands.reproduce.recipe import Recipe
from pipeline.dataset.manifest import MANIFEST
from pipeline.errors import DataError
from pipeline.files import sha256

FOLDER = Path(os.environ.get("PIPELINE_DATA", "../shared/data"))
PACKED = {".gz": gzip.GzipFile, ".xz": lzma.LZMAFile}


def verified(recipe: Recipe, folder: Path) -> dict[str, Path]:
    """Return the files of a recipe, by their names in it; a file may be packed by gzip or xz.

    Args:
        recipe: the recipe.
        folder: directory that contains the files.

    Raises:
        DataError: a file is missing, or has another SHA-256.
    """
    return {name: _verified(recipe, folder, name, digest) for name, digest in recipe.data.items()}


def _verified(recipe: Recipe, folder: Path, name: str, digest: str) -> Path:
    file = next((path for end in ("", *PACKED) if (path := folder / f"{name}{end}").is_file()), None)
    origin = f" (from {recipe.source})" if recipe.source else ""
    if file is None:
        raise DataError(f"{folder / name} not found. Copy the file{origin} there, or name its folder by --data DIR")
    found = sha256(file) if file == folder / name else _unpacked(file)
    if found != digest:
        raise DataError(
            f"{file}: expected SHA-256 {digest}, got {found}. It is another version of the data: replace it by the "
            f"one of the recipe{origin}"
        )
    return file


def _unpacked(file: Path) -> str:
    """Return the SHA-256 of the content of a packed file."""
    try:
        with PACKED[file.suffix](file, "rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{file} cannot be unpacked: {error}. Copy it again") from error


def prepare_dataset(recipe: Recipe, files: Mapping[str, Path], run: Callable[[list[str]], int]) -> int:
    """Prepare the dataset of a recipe unless it exists; return the exit code.

    Args:
        recipe: the recipe.
        files: its files, see `verified`.
        run: runs a command of `unroll` and returns its exit code.

    Raises:
        DataError: a dataset of that name was prepared from other files or by another command.
    """
    target, command = recipe.inputs, recipe.preparation(dict(files))
    if not target.exists():
        return run(command)
    manifest = json.loads((target / MANIFEST).read_bytes()) if (target / MANIFEST).is_file() else {}
    named = [each for each in manifest.get("sources", []) if isinstance(each, dict)]  # not folders
    kept = {each["name"]: str(each["sha256"]) for each in named if "sha256" in each}
    given = {str(file): sha256(file) for file in files.values()}
    before = [kept.get(word, word) for word in _without_output(manifest.get("command", ["unroll"])[1:])]
    if before != [given.get(word, word) for word in _without_output(command)]:
        raise DataError(
            f"{target}: expected a dataset of `unroll {shlex.join(command)}`, got one of other files or another "
            "command. Move it away"
        )
    print(f"{target} exists", flush=True)
    return 0


def _without_output(command: list[str]) -> list[str]:
    """Return a command without its output, which is the same directory."""
    at = command.index("--output") if "--output" in command else len(command)
    return command[:at] + command[at + 2 :]
