"""Command-line options that several modalities share, each declared once, and the checks of their values."""

import argparse
import re
import sys
from argparse import _ActionsContainer as Group  # a parser or an argument group
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.workspace.workspace import SPLITS, Workplace, ordered
from pipeline.arguments import available_cores, fraction, non_negative_integer, positive_integer
from pipeline.errors import ConfigError, DataError, UserError, one_line
from pipeline.files import sha256

NAMED_SOURCE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)=(?P<source>.+)")
NOT_SHAPING = ("output", "overwrite", "streaming", "max_bad_share", "workers")  # options without effect on the result


def add_output(parser: Group) -> None:
    """Add `--output` and `--overwrite`."""
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="write the dataset to DIR")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def add_workers(parser: Group) -> None:
    """Add `--workers`."""
    default, described = available_cores(), "number of worker processes (default: one per CPU core)"
    parser.add_argument("--workers", type=positive_integer, default=default, metavar="N", help=described)


class TestSources(argparse.Action):
    """Stores `--test SOURCE` as `test`, and each `--test NAME=SOURCE` as `test-NAME`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        first = str(values[0] if isinstance(values, list) else values)
        named = NAMED_SOURCE.fullmatch(first)
        split = "test"
        if named and not Path(first).exists():
            split = f"test-{named['name']}"
            rest = (self.type or str)(named["source"])  # type: ignore[operator]
            values = [rest, *values[1:]] if isinstance(values, list) else rest
        if getattr(namespace, split, self.default) is not self.default:
            given = f"{option} {split.removeprefix('test-')}=" if split != "test" else str(option)
            raise argparse.ArgumentError(
                None, f"{given} is given twice. Write all its values after one {option}, or name several test sets"
            )
        setattr(namespace, split, values)


def add_splits(parser: Group, **settings: Any) -> None:
    """Add `--train`, `--validation` and `--test`, each the source of one split; `settings` go to `add_argument`."""
    for name in SPLITS[:2]:
        parser.add_argument(f"--{name}", help=f"source of the {name} split", **settings)
    described = "source of the test split; for several test sets, --test NAME=SOURCE for each (splits test-NAME)"
    parser.add_argument("--test", action=TestSources, help=described, **settings)


def sources(options: argparse.Namespace) -> dict[str, Any]:
    """Return the sources that the command line names, by split: train, validation, test or test-NAME."""
    given = vars(options)
    return {name: given[name] for name in ordered(given) if given[name]}


def add_shares(parser: Group, default: float, of: str) -> None:
    """Add `--validation-share` and `--test-share`.

    Args:
        parser: the parser or group to add to.
        default: default of both shares.
        of: name of the records to split, in the plural.
    """
    for name in ("validation", "test"):
        described = f"fraction of the {of} to hold out for {name} (default: %(default)s)"
        parser.add_argument(f"--{name}-share", type=fraction, default=default, metavar="SHARE", help=described)


def add_max_bad_share(parser: Group, of: str) -> None:
    """Add `--max-bad-share`; `of` names the records, in the plural."""
    described = f"fail if more than this fraction of the {of} is invalid (default: %(default)s)"
    parser.add_argument("--max-bad-share", type=fraction, default=0.01, metavar="SHARE", help=described)


def add_field(parser: Group, name: str, holds: str) -> None:
    """Add `--NAME-field`: the column or key of a source that holds something, NAME by default."""
    described = f"column or key of {holds} (default: %(default)s)"
    parser.add_argument(f"--{name}-field", default=name, metavar="NAME", help=described)


def add_tokenizer(parser: Group, default: str) -> None:
    """Add `--tokenizer`, with `default` as its default, and `--vocab-size`."""
    kinds = "byte, character, word, bpe, unigram or an existing tokenizer.json (default: %(default)s)"
    parser.add_argument("--tokenizer", default=default, metavar="KIND", help=kinds)
    size = (
        "maximum number of tokens, special ones included (default: 8192 for bpe and unigram, no limit for the others)"
    )
    parser.add_argument("--vocab-size", type=positive_integer, metavar="N", help=size)


def add_seed(parser: Group, default: int, of: str) -> None:
    """Add `--seed`; `of` names what it seeds."""
    described = f"random seed of {of} (default: %(default)s)"
    parser.add_argument("--seed", type=non_negative_integer, default=default, metavar="N", help=described)


def check(options: argparse.Namespace) -> None:
    """Check the sources, the shares, if the modality has them, and the output directory.

    Raises:
        ConfigError: the name of a source is empty, or the shares leave no training data.
        DataError: the output exists and must not be overwritten.
    """
    for name in ("source", "sources", *ordered(vars(options))):
        given = vars(options).get(name)
        if "" in (given if isinstance(given, list) else [given]):
            key = "SOURCE" if name.startswith("source") else f"--{name.replace('-', '=', 1)}"
            raise ConfigError(f"{key}=: expected a source, got an empty text. Check the shell variable that names it")
    if "test_share" in options and sum(shares(options).values()) >= 1:
        given = f"--validation-share={options.validation_share:g} --test-share={options.test_share:g}"
        raise ConfigError(f"{given}: the sum must be below 1 to leave training data. Lower one of them")
    if options.output.exists() and not options.overwrite:
        raise DataError(f"--output={options.output} exists. Choose another directory or add --overwrite")
    if options.output.exists() and not (options.output / "dataset.json").is_file():
        raise DataError(
            f"--output={options.output} is not a dataset (no dataset.json), so it is not overwritten. "
            "Choose another directory"
        )


def check_source(options: argparse.Namespace, of: str) -> None:
    """Set `--train` from a positional SOURCE.

    Args:
        options: the command line, changed in place.
        of: name of the source's records, in the plural.

    Raises:
        ConfigError: both SOURCE and `--train` are given, or neither.
    """
    options.train = options.train or options.source
    if options.train is None or (options.source and options.train != options.source):
        number = "none" if options.train is None else "both"
        raise ConfigError(f"expected one source of training {of}, SOURCE or --train SOURCE, got {number}")


def check_sources(options: argparse.Namespace) -> None:
    """Check that either SOURCE... or `--train` (with `--validation` and `--test`) is given.

    Raises:
        ConfigError: both are given, or neither, or held-out splits without `--train`.
    """
    given = sources(options)
    if bool(options.sources) == bool(given):
        number = "both" if given else "neither"
        raise ConfigError(
            f"expected SOURCE..., to be split, or --train with --validation and --test, got {number}. Give one of them"
        )
    if given and not options.train:
        raise ConfigError("--validation and --test require --train, which the model learns from. Add --train")


def shares(options: argparse.Namespace) -> dict[str, float]:
    """Return the fraction of the records to hold out, by split."""
    return {"test": options.test_share, "validation": options.validation_share}


def workplace(options: argparse.Namespace, **more: str) -> Workplace:
    """Return the working directory of a preparation.

    Work of an earlier start is continued there only if the options that shape the result, and `more`, are the same.
    """
    shaping = {name: str(value) for name, value in vars(options).items() if name not in NOT_SHAPING}
    if (existing := Path(shaping.get("tokenizer", ""))).is_file():
        shaping["tokenizer"] = sha256(existing)
    return Workplace(options.output.resolve(), shaping | more)


def run_as_script(main: Callable[[list[str]], int]) -> None:
    """Run a modality as a script: `python -m data_prep.text.command`."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"unroll: error: {one_line(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)


def builtin_count(source: str, what: str, default: int = 2000) -> int:
    """Return the number of samples to generate: N for `builtin:N`, `default` for `builtin`.

    Raises:
        DataError: N is not a positive integer.
    """
    number = source.partition(":")[2] or str(default)
    if not number.isdigit() or not int(number):
        raise DataError(f"{source}: expected a number of {what} after the colon, got {number}. Write builtin:500")
    return int(number)


def is_builtin(source: str) -> bool:
    """Return whether a source is the generated one."""
    return source.partition(":")[0] == "builtin"
