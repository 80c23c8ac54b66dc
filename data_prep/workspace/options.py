"""What the preparations have in common: where they write, what they say of a tokenizer, how much they make up."""

from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.files import sha256


def check_output(output: Path, overwrite: bool) -> None:
    """Raise DataError where a dataset must not be written."""
    if output.exists() and not overwrite:
        raise DataError(f"{output} exists; choose another --output or add --overwrite")
    if output.exists() and not (output / "dataset.json").is_file():
        raise DataError(f"{output} is no dataset, so it is not overwritten; choose another --output")


def vocabulary(file: Path, tokenizer: Any) -> dict[str, Any]:
    """What the manifest says of a tokenizer in its file."""
    from data_prep.workspace.tokenizer import EOS, size

    described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
    return {"tokenizer": described, "vocab_size": size(tokenizer), "eos": tokenizer.token_to_id(EOS)}


def builtin(source: str, what: str) -> int:
    """How much of a built-in source is wanted: N of `builtin:N`, and 2,000 of `builtin`.

    Raises:
        DataError: N is no number.
    """
    count = source.partition(":")[2] or "2000"
    if not count.isdigit() or not int(count):
        raise DataError(f"{source}: after the colon comes how many {what}, as in builtin:500")
    return int(count)


def is_builtin(source: str) -> bool:
    """Whether a source is the one that is made on the spot."""
    return source.partition(":")[0] == "builtin"
