"""The options that several modalities share, each declared once, and the checks of their values."""

import argparse
import os
import sys
from argparse import _ActionsContainer as Group  # or a whole parser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.workspace.workspace import SPLITS, Workplace
from pipeline.arguments import fraction, non_negative_integer, positive_integer
from pipeline.errors import ConfigError, DataError, UserError
from pipeline.files import sha256

NOT_SHAPING = ("output", "overwrite", "streaming", "max_bad_share", "workers")  # they leave the result the same


def add_output(parser: Group) -> None:
    """Add `--output` and `--overwrite`."""
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="write the dataset to DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def add_workers(parser: Group) -> None:
    """Add `--workers`."""
    default, described = os.cpu_count() or 1, "number of processes (default: all cores)"
    parser.add_argument("--workers", type=positive_integer, default=default, metavar="N", help=described)


def add_splits(parser: Group, **settings: Any) -> None:
    """Add `--train`, `--validation` and `--test`, which name the sources of one split; `settings` are argparse's."""
    for name in SPLITS:
        parser.add_argument(f"--{name}", help=f"source of the {name} split", **settings)


def add_shares(parser: Group, default: float, of: str) -> None:
    """Add `--validation-share` and `--test-share`.

    Args:
        parser: gets the options.
        default: of both.
        of: what is divided, in the plural.
    """
    for name in ("validation", "test"):
        described = f"share of the {of} for {name} (default: %(default)s)"
        parser.add_argument(f"--{name}-share", type=fraction, default=default, metavar="SHARE", help=described)


def add_max_bad_share(parser: Group, of: str) -> None:
    """Add `--max-bad-share`; `of` names the records, in the plural."""
    described = f"fail above this share of bad {of} (default: %(default)s)"
    parser.add_argument("--max-bad-share", type=fraction, default=0.01, metavar="SHARE", help=described)


def add_field(parser: Group, name: str, holds: str) -> None:
    """Add `--NAME-field`: the column or the key of a source that holds something, by default the one of that name."""
    described = f"field that holds {holds} (default: %(default)s)"
    parser.add_argument(f"--{name}-field", default=name, metavar="NAME", help=described)


def add_tokenizer(parser: Group, default: str) -> None:
    """Add `--tokenizer`, of the kind `default`, and `--vocab-size`."""
    kinds = "byte, character, word, bpe, unigram or an existing tokenizer.json (default: %(default)s)"
    parser.add_argument("--tokenizer", default=default, metavar="KIND", help=kinds)
    size = "maximum number of tokens, marks included (default: 8192 for bpe and unigram, no limit for the others)"
    parser.add_argument("--vocab-size", type=positive_integer, metavar="N", help=size)


def add_seed(parser: Group, default: int, of: str) -> None:
    """Add `--seed`; `of` names what is drawn from it."""
    described = f"seed of {of} (default: %(default)s)"
    parser.add_argument("--seed", type=non_negative_integer, default=default, metavar="N", help=described)


def check(options: argparse.Namespace) -> None:
    """Check the shares, where there are any, and the output.

    Raises:
        ConfigError: no share is left for training.
        DataError: a dataset must not be written there.
    """
    if "test_share" in options and sum(shares(options).values()) >= 1:
        raise ConfigError("--validation-share and --test-share leave nothing to train on")
    if options.output.exists() and not options.overwrite:
        raise DataError(f"{options.output} exists; choose another --output or add --overwrite")
    if options.output.exists() and not (options.output / "dataset.json").is_file():
        raise DataError(f"{options.output} is no dataset, so it is not overwritten; choose another --output")


def check_source(options: argparse.Namespace, of: str) -> None:
    """Make `--train` of a single SOURCE.

    Args:
        options: the command line, which is changed.
        of: what the source holds, in the plural.

    Raises:
        ConfigError: both are given, or neither.
    """
    options.train = options.train or options.source
    if options.train is None or (options.source and options.train != options.source):
        raise ConfigError(f"name one source of training {of}: SOURCE, or --train SOURCE")


def check_sources(options: argparse.Namespace) -> None:
    """Raise ConfigError where there are sources to divide beside sources of single splits, or neither."""
    given = options.train or options.validation or options.test
    if bool(options.sources) == bool(given):
        raise ConfigError("name sources to cut, or give --train (and --validation, --test): one of the two")
    if given and not options.train:
        raise ConfigError("--validation and --test come with --train: the tokenizer learns from the training split")


def shares(options: argparse.Namespace) -> dict[str, float]:
    """Return the share of each held-out split."""
    return {"test": options.test_share, "validation": options.validation_share}


def workplace(options: argparse.Namespace, **more: str) -> Workplace:
    """Return the directory where the dataset is made; work under other options, or `more`, is not continued there."""
    shaping = {name: str(value) for name, value in vars(options).items() if name not in NOT_SHAPING}
    if (existing := Path(shaping.get("tokenizer", ""))).is_file():
        shaping["tokenizer"] = sha256(existing)
    return Workplace(options.output.resolve(), shaping | more)


def run_as_script(main: Callable[[list[str]], int]) -> None:
    """Run a modality by itself, as `python -m data_prep.text.command`."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"unroll: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def builtin(source: str, what: str) -> int:
    """How much of a built-in source is wanted: N of `builtin:N`, and 2,000 of `builtin`.

    Raises:
        DataError: N is no number.
    """
    number = source.partition(":")[2] or "2000"
    if not number.isdigit() or not int(number):
        raise DataError(f"{source}: after the colon comes how many {what}, as in builtin:500")
    return int(number)


def is_builtin(source: str) -> bool:
    """Whether a source is the one that is made on the spot."""
    return source.partition(":")[0] == "builtin"
