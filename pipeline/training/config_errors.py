"""Translation of jsonargparse's many-line errors into one line that names the key and the fix."""

import re
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from pipeline.errors import ConfigError, UserError
from pipeline.training.shipped_configs import CONFIGS

LISTED = 16  # maximum number of keys of a class listed in an error
CLASS = r"class_path(?:=| )'([\w.]+)'"

# Lines in which jsonargparse reports the types it tried.
NESTING = (
    "usage:",
    "tip:",
    "Problem with given class_path",
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given value",
)


class DuplicateKey(yaml.MarkedYAMLError):
    """A mapping has a key twice."""


class UniqueKeys(yaml.SafeLoader):
    """A loader of YAML that rejects a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node.

        Raises:
            DuplicateKey: a key is there twice.
        """
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and (before := lines.get(str(key.value))):
                problem = f"the key {key.value} is also in line {before}; keep one of them"
                raise DuplicateKey(problem=problem, problem_mark=key.start_mark)
            lines[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_mapping(
    path: Path, option: str = "", expected: str = "an experiment or an overlay of configs/"
) -> dict[str, Any]:
    """Return the keys and values of a YAML file.

    Args:
        path: the file.
        option: text before the file's name in errors, such as `--config `.
        expected: description of a valid file, for errors.

    Raises:
        ConfigError: the file is missing, is not YAML, or is not a mapping of keys to values.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), UniqueKeys)
    except OSError as error:
        near = map(str, path.parent.glob(f"*{path.suffix}") if path.suffix else ())
        ours = (str(file.relative_to(CONFIGS)) for file in CONFIGS.rglob("*.yaml"))
        raise ConfigError(f"{option}{path}: {error.strerror}{suggestion(str(path), [*near, *ours])}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{option}{path}: expected a YAML file, byte {error.start} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{option}{path}{line} is not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{option}{path} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{option}{path} is not a mapping of keys to values: expected {expected}")
    return found


def wrapped_user_error(error: BaseException | None) -> UserError | None:
    """Return the UserError in the chain of causes of an exception, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def readable_error(message: str, keys: Iterable[str] = ()) -> str:
    """Return one line for an error of jsonargparse.

    Args:
        message: the error's message.
        keys: the keys of the command line.
    """
    where = ".init_args.".join(re.findall(r'Parser key "([^"]+)"', message))
    problem = _unknown(message, keys) or _missing_class(message) or _wrong_type(message)
    if problem is None:
        return _shortened(message)
    return f"{where}: {problem}" if where else problem


def _unknown(message: str, keys: Iterable[str]) -> str | None:
    """Return the line for an unknown or a missing key, if the message reports one."""
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        name = found[1].split("=")[0]
        if not name.startswith("-"):
            return f"unknown argument {name}{': use --config' if name.endswith(('.yaml', '.yml')) else ''}"
        if classes := re.findall(CLASS, message):
            name, keys = name.removeprefix("--"), _arguments_of(classes[-1])
            return f"{classes[-1].rsplit('.', 1)[-1]} has no argument {name!r}{suggestion(name, keys)}"
        return f"unknown option {name}{suggestion(name, (f'--{key}' for key in keys))}"
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return f"unknown key {found[1]}.{found[2]}{suggestion(f'{found[1]}.{found[2]}', keys)}"
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        classes = re.findall(CLASS, message)
        if not classes:
            first, groups = found[1].split(".")[0], {key.split(".")[0] for key in keys}
            return f"unknown key {first!r}{suggestion(first, groups)}"
        names = [key for key in _arguments_of(classes[-1]) if "." not in key]
        listed = f"; it has {', '.join(names)}" if 0 < len(names) <= LISTED else ""
        return f"{classes[-1].rsplit('.', 1)[-1]} has no argument {found[1]!r}{suggestion(found[1], names) or listed}"
    if found := re.search(r"arguments are required: (.*)", message):
        return f"the config has no {found[1]}: use --config with an experiment of configs/, then overlays"
    return None


def _missing_class(message: str) -> str | None:
    """Return the line for a module or a class that does not exist, if the message reports one."""
    if found := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message):
        with suppress(ImportError):
            return f"{found[1]} has no {found[2]}{suggestion(found[2], dir(import_module(found[1])))}"
    if found := re.search(r"No module named '([\w.]+)'", message):
        return f"module {found[1]} not found"
    return None


def _wrong_type(message: str) -> str | None:
    """Return the line for a value of the wrong type, if the message reports one."""
    given = re.search(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", message, re.MULTILINE)
    types = [kind for kind in re.findall(r"Expected a <class '(?:\w+\.)*(\w+)'>", message) if kind != "NoneType"]
    choices = [
        choice.strip().strip("'")
        for literal in re.findall(r"Expected a typing\.Literal\[(.*?)\]", message)
        for choice in literal.split(",")
    ]
    if given is None:
        return None
    if (path := re.search(r"Expected a dot import path string: (.*)", message)) and not types:
        return f"{path[1]!r} is not a class: expected a full path such as torch.optim.AdamW"
    if expected := list(dict.fromkeys([*types, *choices])):
        return f"expected {' or '.join(expected)}, got {given[1]!r}{suggestion(given[1], choices)}"
    return None


def _arguments_of(class_path: str) -> list[str]:
    """Return the names of a class's arguments; none if they cannot be read."""
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_class_arguments(getattr(import_module(module), name), fail_untyped=False)
        return list(parser.get_defaults().keys(branches=True))
    except Exception:  # any error of the class's module: only the suggestion is lost
        return []


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a suggestion of the closest known name, or an empty string."""
    found = get_close_matches(name, list(known), 1, 0.75)
    return f"; did you mean {found[0]}?" if found else ""


def _shortened(message: str) -> str:
    """Return the lines that describe the error, without usage and nesting."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    informative = [line for line in lines if not line.startswith(NESTING)]
    return ": ".join(part.rstrip(":") for part in dict.fromkeys(informative or lines))[:600]
