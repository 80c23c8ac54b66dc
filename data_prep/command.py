"""What the preparations have in common: where they write, and what they say of a tokenizer."""

from pathlib import Path
from typing import Any

from pipeline.durable import sha256
from pipeline.errors import DataError


def check_output(output: Path, overwrite: bool) -> None:
    """Raise DataError where a dataset must not be written."""
    if output.exists() and not overwrite:
        raise DataError(f"{output} exists; choose another --output or add --overwrite")
    if output.exists() and not (output / "dataset.json").is_file():
        raise DataError(f"{output} is no dataset, so it is not overwritten; choose another --output")


def vocabulary(file: Path, tokenizer: Any) -> dict[str, Any]:
    """What the manifest says of a tokenizer in its file."""
    from data_prep.tokenizer import EOS, size

    described = {"file": file.name, "size": file.stat().st_size, "sha256": sha256(file)}
    return {"tokenizer": described, "vocab_size": size(tokenizer), "eos": tokenizer.token_to_id(EOS)}
