"""Drop the options of a class in a config when another class replaces it at the same key; pass null on to inner keys.

jsonargparse 4.53 keeps every option of the previous class that the new class accepts, whether it came from a signature,
an earlier config, an outer value or the command line. It has no setting for this, so two of its private functions are
replaced while a config is parsed, only here.
"""

import argparse
import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _typehints

private: Any = _typehints


@contextmanager
def of_their_class() -> Iterator["Dropped"]:
    """Drop all options of a class when a config that is parsed in this context has another class at the same key.

    If the config has the same class again, its options are merged.

    Yields:
        the dropped options, complete at the end.
    """
    dropped = Dropped()
    discard, check = private.discard_init_args_on_class_path_change, private.ActionTypeHint._check_type

    @functools.wraps(check)  # jsonargparse reads the signature
    def check_at_key(action: argparse.Action, *arguments: object, **more: object) -> object:
        dropped.parsing.append(action)
        try:
            return check(action, *arguments, **more)
        finally:
            dropped.parsing.pop()

    private.discard_init_args_on_class_path_change = dropped.discard
    private.ActionTypeHint._check_type = check_at_key
    try:
        yield dropped
    finally:
        private.discard_init_args_on_class_path_change = discard
        private.ActionTypeHint._check_type = check


class Dropped:
    """Options that were dropped because their class was replaced.

    Attributes:
        parsing: actions of the keys that are being parsed, the innermost last.
    """

    def __init__(self) -> None:
        self.parsing: list[argparse.Action] = []
        self._changes: dict[tuple[str, str, str], dict[str, object]] = {}

    def discard(self, parser: Any, before: Any, after: Any) -> None:
        """Remove the options of a value into which another value with a class is merged.

        Args:
            parser: the parser of the new class. When two whole configs are merged it is the action of the key, whose
                changes were recorded when the second config was parsed.
            before: the previous value, with `class_path` and `init_args`.
            after: the new value.
        """
        given = after.get("init_args")
        if isinstance(given, private.NestedArg) and isinstance(given.val, list | dict | None):
            after["init_args"] = private.NestedArg(given.key, json.dumps(given.val))  # not str(): None is null in YAML
        if before is None or before["class_path"] is None:
            return
        old, new = before["class_path"], after["class_path"]
        options = {**before.get("init_args", {}), **before.get("dict_kwargs", {})}
        parses = bool(self.parsing) and not isinstance(parser, private.ActionTypeHint)
        if parses and not options:
            options = self._of_signature(old)
        if not options or private.import_object(old) is private.import_object(new):
            return
        before.pop("init_args", None)
        before.pop("dict_kwargs", None)
        if parses:
            given = getattr(after.get("init_args"), "key", None) or after.get("init_args") or ()
            now = _defaults(old) | _defaults(new)
            lost = {name: value for name, value in options.items() if name not in given and value != now.get(name)}
            self._changes.setdefault((self._key(), old, new), lost)

    def _of_signature(self, path: str) -> dict[str, object]:
        """Return the options of the key's default class in a signature, if no config has set a class."""
        default = self.parsing[-1].default
        named = isinstance(default, dict) and default.get("class_path") == path
        if not named or self._key() in {key for key, _, _ in self._changes}:
            return {}
        return {**_defaults(path), **default.get("init_args", {})}

    def _key(self) -> str:
        return ".init_args.".join(action.dest for action in self.parsing)

    def lines(self) -> list[str]:
        """Return a line for each replaced class with options that were set, or that have another default now."""
        return [
            f"{key}: {new} replaces {old}, whose options are dropped: "
            + ", ".join(f"{name}={value}" for name, value in lost.items())
            for (key, old, new), lost in self._changes.items()
            if lost
        ]


def _defaults(path: str) -> dict[str, object]:
    """Return the defaults in the signature of a class."""
    return dict(private.ActionTypeHint.get_class_parser(path).get_defaults(skip_validation=True))
