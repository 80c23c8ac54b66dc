"""What the preparations' command lines have in common."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from pipeline.durable import sha256
from pipeline.errors import ConfigError, DataError


class Parser(argparse.ArgumentParser):
    """Raises what it does not understand as one line.

    Args:
        program: how the command begins.
        about: what it does.
        examples: what its help ends with.
    """

    def __init__(self, program: str, about: str, examples: str) -> None:
        super().__init__(
            program, description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def share(text: str) -> float:
    """A share of something, for `type=`."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: use a number from 0 to below 1")
    return value


def count(text: str) -> int:
    """A positive number, for `type=`."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive: it must be at least 1")
    return value


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
