"""Argument parsing shared by all verbs."""

import argparse
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pipeline.errors import ConfigError

Number = TypeVar("Number", int, float)


class StoreOnce(argparse._StoreAction):
    """Stores the values of an option; an option with several values must not be repeated, which would drop them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if option and self.nargs in ("+", "*") and getattr(namespace, self.dest) is not self.default:
            raise argparse.ArgumentError(None, f"{option} is given twice. Write all its values after one {option}")
        super().__call__(parser, namespace, values, option)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigError instead of exiting.

    Args:
        prog: name of the command, as shown in its help.
        description: what the command does.
        epilog: text at the end of the help.
        **more: further arguments of argparse.ArgumentParser.
    """

    def __init__(
        self, prog: str | None = None, description: str | None = None, epilog: str | None = None, **more: Any
    ) -> None:
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, description=description, epilog=epilog, **more)
        for name in (None, "store"):
            self.register("action", name, StoreOnce)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def file_to_write(*suffixes: str) -> Callable[[str], Path]:
    """Return a parser of the name of a new file with one of the suffixes in a folder that exists, for `type=`."""

    def parse(text: str) -> Path:
        file = Path(text)
        if file.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"expected a file that ends in {' or '.join(suffixes)}, got {text}")
        if not file.parent.is_dir():
            raise argparse.ArgumentTypeError(f"expected a file in an existing folder, got {text}")
        return file

    return parse


figure_file = file_to_write(".png", ".svg", ".pdf")


def fraction(text: str) -> float:
    """Parse a number in [0, 1), for `type=`."""
    return _read(text, float, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def non_negative_number(text: str) -> float:
    """Parse a number of at least 0, for `type=`."""
    return _read(text, float, lambda value: value >= 0, "a number of at least 0")


def positive_number(text: str) -> float:
    """Parse a finite number above 0, for `type=`."""
    return _read(text, float, lambda value: 0 < value < math.inf, "a finite number above 0")


def non_negative_integer(text: str) -> int:
    """Parse an integer of at least 0, for `type=`."""
    return _read(text, int, lambda value: value >= 0, "an integer of at least 0")


def positive_integer(text: str) -> int:
    """Parse an integer of at least 1, for `type=`."""
    return _read(text, int, lambda value: value >= 1, "an integer of at least 1")


def _read(text: str, kind: Callable[[str], Number], holds: Callable[[Number], bool], expected: str) -> Number:
    with suppress(ValueError):
        if holds(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text}")


def available_cores() -> int:
    """Return the number of cores that this process may use, which a cluster limits to those of the job."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
