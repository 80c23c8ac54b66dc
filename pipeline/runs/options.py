"""Options belong to the class that they are given for: another class at the same key starts from its own defaults.

jsonargparse 4.53 keeps each option of the class before that the new class accepts as well, wherever it came from: the
default of a signature, an earlier config, a value inside another one, the command line. It has no setting for this, so
two of its private functions are replaced while a config is parsed, here and nowhere else.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jsonargparse import _typehints

private: Any = _typehints


@contextmanager
def of_their_class() -> Iterator["Dropped"]:
    """Drop all options of a class where a config that is parsed inside names another class at the same key.

    Naming the same class again merges its options.

    Yields:
        what is dropped, complete at the end.
    """
    dropped = Dropped()
    discard, check = private.discard_init_args_on_class_path_change, private.ActionTypeHint._check_type

    @functools.wraps(check)  # jsonargparse reads the signature
    def check_at_key(action: Any, *arguments: Any, **more: Any) -> Any:
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
        parsing: actions of the keys that are parsed at the moment, the innermost last.
    """

    def __init__(self) -> None:
        self.parsing: list[Any] = []
        self._changes: dict[tuple[str, str, str], dict[str, Any]] = {}

    def discard(self, parser: Any, before: Any, after: Any) -> None:
        """Remove the options from a value that another one with a class is merged into.

        Args:
            parser: of the new class, or the action of the key where two whole configs are merged: what that drops
                was recorded when the values of the second one were parsed.
            before: the value there was, with `class_path` and `init_args`.
            after: the value that is given.
        """
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

    def _of_signature(self, path: str) -> dict[str, Any]:
        """The options of the class that a signature names for the key, where no config names one."""
        default = self.parsing[-1].default
        named = isinstance(default, dict) and default.get("class_path") == path
        if not named or self._key() in {key for key, _, _ in self._changes}:
            return {}
        return {**_defaults(path), **default.get("init_args", {})}

    def _key(self) -> str:
        return ".init_args.".join(action.dest for action in self.parsing)

    def lines(self) -> list[str]:
        """A line for each class that was replaced with options that somebody set or whose default is another now."""
        return [
            f"{key}: {new} replaces {old}, whose options are dropped: "
            + ", ".join(f"{name}={value}" for name, value in lost.items())
            for (key, old, new), lost in self._changes.items()
            if lost
        ]


def _defaults(path: str) -> dict[str, Any]:
    """The options of a class as its signature sets them."""
    return dict(private.ActionTypeHint.get_class_parser(path).get_defaults(skip_validation=True))
