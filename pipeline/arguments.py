"""What the command lines of all verbs have in common."""

import argparse
from typing import Any, NoReturn

from pipeline.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises what it does not understand as one line.

    Args:
        prog: how the command begins.
        description: what it does.
        epilog: what its help ends with.
        **more: as of argparse.
    """

    def __init__(
        self, prog: str | None = None, description: str | None = None, epilog: str | None = None, **more: Any
    ) -> None:
        more.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog, description=description, epilog=epilog, **more)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def share(text: str) -> float:
    """A share of something, for `type=`."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: use a number from 0 to below 1")
    return value


def seed(text: str) -> int:
    """What numbers are drawn from, for `type=`."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is no seed: it must be from 0 up")
    return value


def count(text: str) -> int:
    """A positive number, for `type=`."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive: it must be at least 1")
    return value
